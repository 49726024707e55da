package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

// rawKey is one key as it lies in Redis; which of the parts it has depends on its kind.
type rawKey struct {
	Key     string            `json:"key"`
	Kind    string            `json:"kind"`
	TTLMs   *int64            `json:"ttl_ms,omitempty"`
	Value   string            `json:"value_hex,omitempty"`
	Members []rawMember       `json:"members,omitempty"`
	Fields  map[string]string `json:"fields_hex,omitempty"`
}

type rawMember struct {
	Hex   string   `json:"hex"`
	Score *float64 `json:"score,omitempty"`
}

func hexOf(text string) string { return hex.EncodeToString([]byte(text)) }

// readAll reads every key below asynq's root, sorted by name.
func readAll(ctx context.Context, raw *redis.Client) ([]rawKey, error) {
	names, err := raw.Keys(ctx, "asynq:*").Result()
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	keys := make([]rawKey, 0, len(names))
	for _, name := range names {
		key, err := readKey(ctx, raw, name)
		if err != nil {
			return nil, fmt.Errorf("could not read %s: %w", name, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func readKey(ctx context.Context, raw *redis.Client, name string) (rawKey, error) {
	kind, err := raw.Type(ctx, name).Result()
	if err != nil {
		return rawKey{}, err
	}
	key := rawKey{Key: name, Kind: kind}
	if ttl, err := raw.PTTL(ctx, name).Result(); err != nil {
		return key, err
	} else if ttl > 0 {
		ms := ttl.Milliseconds()
		key.TTLMs = &ms
	}
	switch kind {
	case "string":
		value, err := raw.Get(ctx, name).Result()
		key.Value = hexOf(value)
		return key, err
	case "hash":
		fields, err := raw.HGetAll(ctx, name).Result()
		key.Fields = map[string]string{}
		for field, value := range fields {
			key.Fields[field] = hexOf(value)
		}
		return key, err
	case "list":
		members, err := raw.LRange(ctx, name, 0, -1).Result()
		key.Members = membersOf(members)
		return key, err
	case "set":
		members, err := raw.SMembers(ctx, name).Result()
		slices.SortFunc(members, strings.Compare)
		key.Members = membersOf(members)
		return key, err
	case "zset":
		members, err := raw.ZRangeWithScores(ctx, name, 0, -1).Result()
		for _, member := range members {
			key.Members = append(key.Members, rawMember{Hex: hexOf(member.Member.(string)), Score: &member.Score})
		}
		return key, err
	}
	return key, fmt.Errorf("unexpected kind %q", kind)
}

func membersOf(list []string) []rawMember {
	members := make([]rawMember, 0, len(list))
	for _, member := range list {
		members = append(members, rawMember{Hex: hexOf(member)})
	}
	return members
}
