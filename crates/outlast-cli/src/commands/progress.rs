//! Progress of long work, on stderr and only where somebody looks at it.

use indicatif::{ProgressBar, ProgressStyle};

/// A counter of what has been done so far. Invisible unless stderr is a screen.
pub(crate) fn counter(what: &'static str) -> ProgressBar {
    let counter = ProgressBar::new_spinner();
    // A template that indicatif cannot read leaves its own style.
    if let Ok(style) = ProgressStyle::with_template("{spinner} {human_pos} {msg} in {elapsed}") {
        counter.set_style(style);
    }
    counter.with_message(what)
}
