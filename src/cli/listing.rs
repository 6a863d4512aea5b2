//! Rows that a command lists: as a table, as JSON, or by a template of the user.

use serde_json::{Map, Value};

use super::{Result, output, output_line};
use crate::ui::format::Table;
use crate::ui::template::Template;

/// A list. Rows are JSON objects whose keys are the fields of templates.
pub(super) struct Listing<'a> {
    /// The fields of the usual table, in order.
    pub(super) columns: &'a [&'a str],
    /// The header of each field that a table can have.
    pub(super) headers: &'a [(&'a str, &'a str)],
    /// The rows.
    pub(super) rows: Vec<Value>,
}

impl Listing<'_> {
    fn header(&self, field: &str) -> String {
        let found = self.headers.iter().find(|(name, _)| *name == field);
        found.map_or_else(|| field.to_uppercase(), |(_, header)| (*header).to_owned())
    }

    /// Writes the list in the format that docker's `--format` asks for.
    pub(super) fn show(&self, format: Option<&str>) -> Result<()> {
        match format {
            None | Some("" | "table") => self.table(),
            Some("json") => self
                .rows
                .iter()
                .try_for_each(|row| output_line(&row.to_string())),
            Some(format) => self.by_template(format),
        }
    }

    fn table(&self) -> Result<()> {
        let mut table = Table::new(self.columns.iter().map(|field| self.header(field)));
        for row in &self.rows {
            let cells = self.columns.iter().map(|field| match &row[*field] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            });
            table.row(cells);
        }
        output(&table.render())
    }

    fn by_template(&self, format: &str) -> Result<()> {
        // As docker does it: shells leave these as they are.
        let format = format.replace("\\t", "\t").replace("\\n", "\n");
        let Some(columns) = format.strip_prefix("table ") else {
            let template = Template::parse(&format)?;
            return self
                .rows
                .iter()
                .try_for_each(|row| output_line(&template.render(row)?));
        };
        let template = Template::parse(columns)?;
        let headers: Map<String, Value> = self
            .headers
            .iter()
            .map(|(field, header)| ((*field).to_owned(), (*header).into()))
            .collect();
        let header = template.render(&headers.into())?;
        let mut table = Table::new(header.split('\t'));
        for row in &self.rows {
            table.row(template.render(row)?.split('\t'));
        }
        output(&table.render())
    }
}
