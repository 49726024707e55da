//! Progress of long work, on stderr and only where somebody looks at it.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar towards `total`, or a counter where the end is not known. Invisible unless stderr is a screen.
pub(crate) fn bar(total: Option<u64>, what: &'static str) -> ProgressBar {
    let bar = match total {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::new_spinner(),
    };
    let template = match total {
        Some(_) => "{human_pos:>9} of {human_len} {msg} {wide_bar} {per_sec}",
        None => "{human_pos:>9} {msg} {spinner} {per_sec} {elapsed}",
    };
    // A template that indicatif cannot read leaves its own style.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.with_message(what)
}
