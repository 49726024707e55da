package main

func golden(args []string) error { return nil }
func bench(args []string) error  { return nil }
func ping(args []string) error   { return nil }
