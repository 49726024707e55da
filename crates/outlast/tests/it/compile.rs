//! Compile errors of wrong handlers say in one line what is wrong.

#[test]
fn a_wrong_handler_gets_a_compile_error_that_names_the_remedy() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
}
