//! What goes to stdout: a table for people, or with `--json` one object a line for programs. Everything
//! else (logs, progress, hints, errors) goes to stderr.

use std::io::{IsTerminal, Write};

use comfy_table::{ContentArrangement, Table};
use outlast::Timestamp;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::exit::CliError;

/// The message of an error about stdout; see [`crate::exit::report`].
pub(crate) const STDOUT: &str = "could not write to stdout";

/// Characters kept of a wide cell where the width is not known.
const WIDE_CELL_CHARS: usize = 80;

/// Characters kept of a wide cell on the narrowest screen.
const WIDE_CELL_CHARS_MIN: usize = 24;

/// Blanks between columns.
const COLUMN_GAP: u16 = 2;

/// Something that is shown as a row of a table, or as a JSON object.
pub(crate) trait Row: Serialize {
    /// The heads of the columns.
    const HEAD: &'static [&'static str];
    /// The column that is cut where the line would be wider than the screen.
    const WIDE: Option<usize> = None;
    /// The cells, as many as heads.
    fn cells(&self) -> Vec<String>;
}

/// How a command writes its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Table,
    Json,
}

/// Prints rows. An empty table is its head, so that one sees what there is nothing of.
pub(crate) fn rows<R: Row>(format: Format, rows: &[R]) -> Result<(), CliError> {
    match format {
        Format::Json => objects(rows),
        Format::Table => write(table(rows).as_bytes()),
    }
}

/// Prints JSON objects, one a line.
pub(crate) fn objects<T: Serialize>(objects: &[T]) -> Result<(), CliError> {
    let mut text = Vec::new();
    for object in objects {
        serde_json::to_writer(&mut text, object)
            .map_err(|error| CliError::failed("could not write JSON", error))?;
        text.push(b'\n');
    }
    write(&text)
}

/// Prints one object, or with tables its fields one a line.
pub(crate) fn object<T: Serialize>(format: Format, object: &T) -> Result<(), CliError> {
    if let Format::Json = format {
        return objects(std::slice::from_ref(object));
    }
    let fields = serde_json::to_string(object).and_then(|text| serde_json::from_str(&text));
    let Fields(fields) = fields.map_err(|error| CliError::failed("could not write JSON", error))?;
    let wide = fields.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let mut text = String::new();
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        let value = value.as_str().map_or_else(|| value.to_string(), clean);
        text.push_str(&format!("{name:<wide$}  {value}\n"));
    }
    write(text.as_bytes())
}

/// The fields of an object in the order in which they were written, which a JSON value would lose.
struct Fields(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// A time in a table: to the second, so that all are equally wide.
pub(crate) fn time(at: Option<Timestamp>) -> String {
    at.map(|at| Timestamp::from_seconds(at.as_seconds()).to_string()).unwrap_or_default()
}

/// Prints a line of text.
pub(crate) fn line(text: &str) -> Result<(), CliError> {
    write(format!("{text}\n").as_bytes())
}

/// Writes to stdout at once: what was printed has been seen, whatever happens next.
pub(crate) fn write(bytes: &[u8]) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    written.map_err(|error| CliError::failed(STDOUT, error))
}

/// The table as text, with the wide column cut to what the screen has left for it.
pub(crate) fn table<R: Row>(rows: &[R]) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(R::HEAD.iter().map(|head| head.to_uppercase()));
    let cells = |row: &R| -> Vec<String> { row.cells().iter().map(|cell| clean(cell)).collect() };
    let mut lines: Vec<Vec<String>> = rows.iter().map(cells).collect();
    if let Some(wide) = R::WIDE {
        let screen = table.width().filter(|_| std::io::stdout().is_terminal());
        let chars = screen.map_or(WIDE_CELL_CHARS, |width| room::<R>(&lines, wide, width.into()));
        lines.iter_mut().for_each(|line| line[wide] = cut(&line[wide], chars));
    }
    table.add_rows(lines);
    for column in table.column_iter_mut() {
        column.set_padding((0, COLUMN_GAP));
    }
    let text = table.to_string();
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Characters that a screen has left for the column `wide`.
fn room<R: Row>(lines: &[Vec<String>], wide: usize, screen: usize) -> usize {
    let others = (0..R::HEAD.len()).filter(|column| *column != wide);
    let used = others.map(|column| {
        let cells = lines.iter().map(|line| line[column].chars().count());
        cells.max().unwrap_or_default().max(R::HEAD[column].len()) + usize::from(COLUMN_GAP)
    });
    // A narrow screen breaks the line; a cell of nothing but dots would tell nobody anything.
    screen.saturating_sub(used.sum::<usize>() + 1).max(WIDE_CELL_CHARS_MIN)
}

/// Text that is safe on a screen: what others wrote may hold line ends and escape codes.
pub(crate) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => clean.extend(c.escape_default()),
            false => clean.push(c),
        }
    }
    clean
}

fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Pet {
        name: &'static str,
        says: String,
    }

    impl Row for Pet {
        const HEAD: &'static [&'static str] = &["name", "says"];
        const WIDE: Option<usize> = Some(1);
        fn cells(&self) -> Vec<String> {
            vec![self.name.to_owned(), self.says.clone()]
        }
    }

    #[test]
    fn tables_have_a_head_and_no_trailing_blanks_and_hide_control_characters() {
        let pets = [
            Pet { name: "cat", says: "meow\n\x1b[31m".into() },
            Pet { name: "elephant", says: "t".repeat(100) },
        ];
        let wide = format!("{}…", "t".repeat(80));
        let lines =
            ["NAME      SAYS", "cat       meow\\n\\u{1b}[31m", &format!("elephant  {wide}")];
        assert_eq!(table(&pets), lines.map(|line| format!("{line}\n")).concat());
        assert_eq!(table::<Pet>(&[]), "NAME  SAYS\n");
    }
}
