//! "Did you mean …?": the known word nearest to the one that was written.

/// The word of `known` nearest to `written`, if it is near enough to be what was meant: at most a third of
/// the letters differ, and at least one is the same.
pub(crate) fn nearest<'a>(
    written: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let most = (written.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|word| (distance(written, word), word))
        .filter(|(far, word)| {
            *far <= most.max(usize::from(word.len() > 3) * 2) && *far < word.len()
        })
        .min()
        .map(|(_, word)| word)
}

/// `; did you mean mail?`, or nothing.
pub(crate) fn hint<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(written, known).map(|word| format!("; did you mean {word}?")).unwrap_or_default()
}

/// serde's message about a key that nobody knows, in our words: it names the keys that are known, and the
/// nearest of them is what was meant. `None` for any other message.
pub(crate) fn unknown_field(message: &str) -> Option<String> {
    let rest = message.strip_prefix("unknown field `")?;
    let mut names = rest.split('`').step_by(2);
    let written = names.next().unwrap_or_default();
    let known: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
    Some(match nearest(written, known.iter().copied()) {
        Some(near) => format!("unknown key {written:?}; did you mean {near:?}?"),
        None => format!("unknown key {written:?}; known here are {}", known.join(", ")),
    })
}

/// Letters to insert, delete, replace or swap with their neighbour to make one word of the other.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let mut best = (last[j] + usize::from(a != b)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised_and_another_word_is_not() {
        let known = ["mail", "files", "default"];
        assert_eq!(nearest("mial", known), Some("mail"));
        assert_eq!(nearest("fils", known), Some("files"));
        assert_eq!(nearest("defualt", known), Some("default"));
        assert_eq!(nearest("concurency", ["weight", "concurrency"]), Some("concurrency"));
        assert_eq!(nearest("slot", ["slots", "shutdown", "lease"]), Some("slots"));
        assert_eq!(nearest("reports", known), None);
        assert_eq!(nearest("x", ["y"]), None);
    }
}
