//! As much of Rust's syntax as the rules need: where comments and literals are, where a function or a test module ends.

/// Blanks comments, strings and characters, newlines apart. Offsets and line numbers stay what they were.
pub(crate) fn mask(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match blank_until(bytes, at) {
            Some(end) => {
                let end = end.min(bytes.len());
                code.extend(bytes[at..end].iter().map(|b| if *b == b'\n' { b'\n' } else { b' ' }));
                at = end;
            }
            None => {
                code.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(code).expect("only whole comments and literals were replaced")
}

/// The end of the comment or literal that begins at `at`, if one does.
fn blank_until(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    match rest {
        [b'/', b'/', ..] => Some(find(bytes, at, b"\n")),
        [b'/', b'*', ..] => Some(comment_end(bytes, at)),
        [b'"', ..] => Some(string_end(bytes, at + 1, b'"')),
        [b'r', b'"' | b'#', ..] => raw_string_end(bytes, at + 1),
        [b'\'', b'\\', ..] => Some(string_end(bytes, at + 1, b'\'')),
        [b'\'', first, ..] => {
            // A lifetime has no closing quote right behind its first character.
            let close = at + 1 + utf8_len(*first);
            (bytes.get(close) == Some(&b'\'')).then_some(close + 1)
        }
        _ => None,
    }
}

fn utf8_len(first: u8) -> usize {
    match first {
        0xf0.. => 4,
        0xe0.. => 3,
        0xc0.. => 2,
        _ => 1,
    }
}

/// Block comments nest.
fn comment_end(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0);
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string_end(bytes: &[u8], mut at: usize, quote: u8) -> usize {
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// `at` is behind the `r`; a raw identifier (`r#type`) is no string.
fn raw_string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let hashes = bytes[at..].iter().take_while(|b| **b == b'#').count();
    (bytes.get(at + hashes) == Some(&b'"')).then(|| {
        let close = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
        find(bytes, at + hashes + 1, &close) + close.len()
    })
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> usize {
    let tail = bytes.get(from..).unwrap_or_default();
    tail.windows(what.len()).position(|w| w == what).map_or(bytes.len(), |at| from + at)
}

/// The line of `offset`, counted from 1.
pub(crate) fn line(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset].iter().filter(|b| **b == b'\n').count() + 1
}

/// Where `word` stands as a whole identifier.
pub(crate) fn words(code: &str, word: &str) -> Vec<usize> {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    let alone = |at: &usize| {
        !code[..*at].ends_with(in_word) && !code[*at + word.len()..].starts_with(in_word)
    };
    code.match_indices(word).map(|(at, _)| at).filter(alone).collect()
}

/// The end of the item whose head begins at `at`: behind its closing brace, or behind its semicolon.
fn item_end(code: &str, at: usize) -> Option<usize> {
    let mut depth = 0;
    for (i, byte) in (at..).zip(code[at..].bytes()) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b';' if depth == 0 => return Some(i + 1),
            b'{' if depth == 0 => return closing(code, i).map(|end| end + 1),
            _ => {}
        }
    }
    None
}

/// The brace that closes the one at `open`.
fn closing(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0;
    for (i, byte) in (open..).zip(code[open..].bytes()) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return Some(i),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// For each line whether it lies in an item under `#[cfg(test)]`.
pub(crate) fn test_lines(code: &str) -> Vec<bool> {
    let mut lines = vec![false; code.lines().count()];
    for head in ["#[cfg(test)]", "#[cfg(all(test,"] {
        for (at, _) in code.match_indices(head) {
            let end = item_end(code, at).unwrap_or(code.len());
            lines[line(code, at) - 1..line(code, end - 1)].fill(true);
        }
    }
    lines
}

/// A function, as long as from the line of its `fn` to its closing brace.
pub(crate) struct Function<'a> {
    pub(crate) name: &'a str,
    pub(crate) line: usize,
    pub(crate) lines: usize,
}

/// Every function that has a name and a body, nested ones too.
pub(crate) fn functions(code: &str) -> Vec<Function<'_>> {
    let function = |at: usize| {
        let name =
            code[at + 2..].strip_prefix(' ')?.split(|c: char| "(<{ \n".contains(c)).next()?;
        let end = item_end(code, at)?;
        let first = line(code, at);
        let has_body = !name.is_empty() && code[..end].ends_with('}');
        has_body.then(|| Function { name, line: first, lines: line(code, end - 1) - first + 1 })
    };
    words(code, "fn").into_iter().filter_map(function).collect()
}

#[test]
fn comments_and_literals_are_blanked_in_place() {
    let cases = [
        ("a // b", "a     "),
        ("a /* /* b */ c */ d", "a                 d"),
        (r#"f("}\"{", '"', '\'', b'{')"#, "f(      ,    ,     , b   )"),
        ("r#\"}\"# r#type br\"{\"", "       r#type b    "),
        ("&'a str; 'ä'; '\\u{1f}'", "&'a str;     ;         "),
        ("\"two\nlines\" x", "    \n       x"),
    ];
    for (text, code) in cases {
        assert_eq!(mask(text), code, "{text}");
    }
}

#[test]
fn functions_are_measured_from_signature_to_closing_brace() {
    let text = "fn a(\n    x: [u8; 3],\n) {\n    if x { \"}\" }\n}\ntrait T { fn b(); }\ntype F = fn(u8);\n";
    let code = mask(text);
    let found: Vec<_> = functions(&code).iter().map(|f| (f.name, f.line, f.lines)).collect();
    assert_eq!(found, [("a", 1, 5)]);
}

#[test]
fn a_test_item_ends_at_its_brace_or_semicolon() {
    let code = "fn a() {}\n#[cfg(test)]\n#[path = 1]\nmod t;\nfn b() {}\n#[cfg(test)]\nmod u {\n}\nfn c() {}";
    let lines = test_lines(code);
    assert_eq!(lines, [false, true, true, true, false, true, true, true, false]);
}
