//! Lists as docker prints them: a table, a table of chosen columns, a line of text or of JSON for each entry.

use serde_json::{Map, Value};

use crate::error::Error;
use crate::format::Format;
use crate::table;

/// A list and the fields that its entries have.
pub struct List<'a> {
    /// Each field and the head of its column.
    pub fields: &'a [(&'a str, &'a str)],
    /// The fields that the table has, if nothing else is asked for.
    pub shown: &'a [&'a str],
}

impl List<'_> {
    /// Prints entries, which are objects with the list's fields, as `--format` says.
    pub fn print(&self, format: Option<&str>, entries: &[Value]) -> Result<(), Error> {
        match format {
            None | Some("table") => {
                let header: Vec<&str> = self.shown.iter().map(|field| self.head(field)).collect();
                let cell = |entry: &Value, field: &str| match &entry[field] {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                let row =
                    |entry: &Value| self.shown.iter().map(|field| cell(entry, field)).collect::<Vec<_>>();
                table::print(&header, &entries.iter().map(row).collect::<Vec<_>>())
            }
            Some(text) => match text.strip_prefix("table ") {
                Some(text) => self.print_columns(&Format::parse(text.trim_start())?, entries),
                None => {
                    let format = Format::parse(text)?;
                    // Before the first line, so that a wrong field prints nothing.
                    let lines: Result<Vec<_>, Error> = entries.iter().map(|entry| format.of(entry)).collect();
                    // An empty list shows a wrong field too.
                    format.of(&self.heads())?;
                    table::write_out(&lines?.iter().map(|line| format!("{line}\n")).collect::<String>())
                }
            },
        }
    }

    fn head(&self, field: &str) -> &str {
        self.fields.iter().find(|(name, _)| *name == field).map_or("", |(_, head)| head)
    }

    /// An entry whose values are the heads of the columns.
    fn heads(&self) -> Value {
        let heads = self.fields.iter().map(|(name, head)| ((*name).to_owned(), Value::from(*head)));
        Value::Object(heads.collect::<Map<_, _>>())
    }

    fn print_columns(&self, format: &Format, entries: &[Value]) -> Result<(), Error> {
        let cells = |entry: &Value| -> Result<Vec<String>, Error> {
            Ok(format.of(entry)?.split('\t').map(str::to_owned).collect())
        };
        let header = cells(&self.heads())?;
        let rows = entries.iter().map(cells).collect::<Result<Vec<_>, _>>()?;
        table::print(&header.iter().map(String::as_str).collect::<Vec<_>>(), &rows)
    }
}
