//! `topolab table`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::{EXIT_CODES, note, say};

/// Make a table of results: means over seeds, one against another
///
/// Columns are the fields of a row, such as run.architecture.depth, run.seed, result.test_accuracy; the last words of a name do where they are
/// its alone (depth, seed, test_accuracy). Without --by there is a line for each row, with the results and what differs between rows.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct Table {
    /// Files of results, JSON lines; rows of the same id count once
    #[arg(required = true)]
    results: Vec<PathBuf>,
    /// One row for each combination of these columns, with mean, standard deviation and 95 % confidence interval of each of VALUES
    #[arg(short, long, value_name = "COLUMNS", value_delimiter = ',')]
    by: Vec<String>,
    /// The numbers that the table is about; all of `result` if not said
    #[arg(short, long, value_name = "COLUMNS", value_delimiter = ',')]
    values: Vec<String>,
    /// Only rows in which a column has this value
    #[arg(short = 'w', long = "where", value_name = "COLUMN=VALUE", value_parser = condition)]
    only: Vec<(String, String)>,
    /// One column for each value of this one of COLUMNS, with the mean of the first of VALUES
    #[arg(long, value_name = "COLUMN", requires = "by")]
    pivot: Option<String>,
    /// Sort by these columns
    #[arg(short, long, value_name = "COLUMNS", value_delimiter = ',')]
    sort: Vec<String>,
    /// What to write; by the ending of FILE if not said
    #[arg(short, long, value_enum)]
    format: Option<Format>,
    /// Write it to standard output as JSON: an array with an object for each row
    #[arg(long, conflicts_with_all = ["format", "output"])]
    json: bool,
    /// Where to write it; to standard output if not said
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Aligned columns; a long table shows its first and last rows
    Text,
    /// Comma-separated values, all digits
    Csv,
    /// A JSON object a row
    Jsonl,
    /// A page
    Html,
    /// A tabular with the rules of booktabs
    Latex,
    /// Apache Parquet
    Parquet,
}

fn condition(text: &str) -> Result<(String, String), String> {
    let (column, value) = text.split_once('=').ok_or_else(|| format!("wanted COLUMN=VALUE, found `{text}`"))?;
    Ok((column.to_owned(), value.to_owned()))
}

/// # Errors
/// When a file is none of results, a column is not there, or the table cannot be written.
pub(crate) fn table(args: &Table) -> Result<ExitCode> {
    let table = rows(&args.results)?;
    let full = |name: &String| full_name(&table, name);
    let all = |names: &[String]| names.iter().map(full).collect::<Result<Vec<String>>>();
    let mut made = table.clone();
    for (column, value) in &args.only {
        let column = full(column)?;
        made = made.filter(|row| row.text(&column) == *value)?;
    }
    let by = all(&args.by)?;
    // Runs are written as they finish, in any order.
    let order: Vec<String> =
        if by.is_empty() { telling(&made).into_iter().filter(|name| name.starts_with("run.")).collect() } else { by.clone() };
    if !order.is_empty() {
        made = made.sort(&refs(&order))?;
    }
    let mut values = all(&args.values)?;
    if values.is_empty() {
        values = table.names().into_iter().filter(|name| name.starts_with("result.") && made.column_f64(name).is_ok()).collect();
    }
    if let Some(column) = &args.pivot {
        let column = full(column)?;
        ensure!(by.contains(&column), "--pivot {column}: wanted one of --by ({})", by.join(", "));
        let value = values.first().context("--pivot: wanted a column in --values")?;
        let means = made.mean(&[value], &refs(&by))?;
        let rest: Vec<String> = by.iter().filter(|name| **name != column).cloned().collect();
        made = means.pivot(&refs(&rest), &column, value)?;
    } else if !by.is_empty() {
        made = made.summary(&refs(&values), &refs(&by))?;
    } else if args.values.is_empty() {
        made = made.select(&refs(&telling(&made)))?;
    } else {
        made = made.select(&refs(&values))?;
    }
    if !args.sort.is_empty() {
        let sort = args.sort.iter().map(|name| full_name(&made, name)).collect::<Result<Vec<String>>>()?;
        made = made.sort(&refs(&sort))?;
    }
    write(&made.short_names(), args)?;
    Ok(ExitCode::SUCCESS)
}

fn refs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

/// All rows of all files; of those with the same id the first.
fn rows(files: &[PathBuf]) -> Result<lab::Table> {
    let mut lines = std::collections::BTreeSet::new();
    let mut rows: Vec<serde_json::Value> = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).with_context(|| format!("{}: cannot be read", file.display()))?;
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let row: serde_json::Value = match serde_json::from_str(line) {
                Ok(row) => row,
                // Cut by a kill; the sweep will run it again.
                Err(_) if at + 1 == text.lines().count() && !text.ends_with('\n') => continue,
                Err(error) => bail!("{}: line {}: wanted a JSON object, found {error}", file.display(), at + 1),
            };
            let is_new = row["id"].as_str().is_none_or(|id| lines.insert(id.to_owned()));
            if is_new {
                rows.push(row);
            }
        }
    }
    Ok(lab::Table::from_rows(&rows)?)
}

/// The column that ends in these words.
fn full_name(table: &lab::Table, name: &str) -> Result<String> {
    let names = table.names();
    if names.iter().any(|column| column == name) {
        return Ok(name.to_owned());
    }
    let ends: Vec<&String> = names.iter().filter(|column| column.ends_with(&format!(".{name}"))).collect();
    match ends[..] {
        [one] => Ok(one.clone()),
        [] => {
            let some = Some(telling(table)).filter(|names| !names.is_empty()).unwrap_or(names);
            bail!("column `{name}`: wanted one of {}, found no such column", some.join(", "))
        }
        _ => bail!("column `{name}`: wanted one column, found {}", ends.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ")),
    }
}

/// The columns of results, and those that are not the same in all rows.
fn telling(table: &lab::Table) -> Vec<String> {
    let differs = |name: &String| table.column_text(name).is_ok_and(|cells| cells.iter().any(|cell| *cell != cells[0]));
    table.names().into_iter().filter(|name| name != "id" && (name.starts_with("result.") || differs(name))).collect()
}

fn write(table: &lab::Table, args: &Table) -> Result<()> {
    let ending = args.output.as_ref().and_then(|path| path.extension()?.to_str());
    let format = match (args.format, ending) {
        _ if args.json => Format::Jsonl,
        (Some(format), _) => format,
        (None, None) => Format::Text,
        (None, Some(ending)) => match ending {
            "txt" => Format::Text,
            "tex" => Format::Latex,
            other => <Format as ValueEnum>::from_str(other, true)
                .map_err(|_| anyhow::anyhow!("ending .{other}: wanted csv, jsonl, html, tex, parquet or txt"))?,
        },
    };
    // The writers write files; standard output gets one that is gone afterwards.
    let aside = std::env::temp_dir().join(format!("topolab-table-{}", std::process::id()));
    let path = args.output.clone().unwrap_or_else(|| aside.clone());
    match format {
        Format::Text => std::fs::write(&path, format!("{table}\n"))?,
        Format::Latex => std::fs::write(&path, table.latex())?,
        Format::Csv => table.write_csv(&path)?,
        Format::Jsonl => table.write_jsonl(&path)?,
        Format::Html => table.write_html(&path)?,
        Format::Parquet => {
            ensure!(args.output.is_some(), "--format parquet: wanted --output FILE, found none");
            table.write_parquet(&path)?;
        }
    }
    match &args.output {
        Some(path) => note(&format!("{}: {} rows", path.display(), table.len())),
        None => {
            let text = std::fs::read_to_string(&aside);
            let _ = std::fs::remove_file(&aside);
            let text = text?;
            if args.json {
                let rows = text.lines().map(serde_json::from_str).collect::<serde_json::Result<Vec<serde_json::Value>>>()?;
                say(&format!("{:#}", serde_json::Value::from(rows)));
            } else {
                say(&text);
            }
        }
    }
    Ok(())
}
