//! A notebook's parameters: a cell of `let name = literal;` lines, and the literals that take their place in a run.

use anyhow::{Context, Result, anyhow, bail, ensure};

/// One `let name: annotation = literal;`.
#[derive(Debug, PartialEq)]
pub(crate) struct Parameter {
    name: String,
    annotation: Option<String>,
    literal: String,
    kind: Kind,
}

/// What a literal is.
#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Text,
    /// Of this type: `i32` where nothing says otherwise.
    Integer(String),
    Float,
    Bool,
}

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Kind::Text => "string",
            Kind::Integer(_) => "integer",
            Kind::Float => "float",
            Kind::Bool => "bool",
        }
    }
}

/// The parameters that a cell declares.
///
/// # Errors
/// When a line is neither blank, nor a comment, nor a `let` of a literal.
pub(crate) fn parse(cell: &str) -> Result<Vec<Parameter>> {
    let blank = |line: &str| line.is_empty() || line.starts_with("//");
    let lines = cell.lines().map(str::trim).enumerate().filter(|(_, line)| !blank(line));
    lines
        .map(|(k, line)| {
            parse_line(line)
                .with_context(|| format!("the cell tagged `parameters`, line {}: wanted `let name = literal;`, found `{line}`", k + 1))
        })
        .collect()
}

fn parse_line(line: &str) -> Result<Parameter> {
    let rest = line.strip_prefix("let ").context("no `let`")?;
    let (left, right) = rest.split_once('=').context("no `=`")?;
    let (name, annotation) = match left.split_once(':') {
        Some((name, annotation)) => (name.trim(), Some(annotation.trim().to_owned())),
        None => (left.trim(), None),
    };
    let is_name = name.starts_with(|c: char| c.is_alphabetic() || c == '_') && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    ensure!(is_name, "`{name}` is no name");
    let right = right.trim_start();
    let (literal, rest) = split_literal(right)?;
    let rest = rest.trim_start().strip_prefix(';').context("no `;` behind the literal")?.trim_start();
    ensure!(rest.is_empty() || rest.starts_with("//"), "more than one statement");
    let kind = kind_of(literal, annotation.as_deref())?;
    Ok(Parameter { name: name.to_owned(), annotation, literal: literal.to_owned(), kind })
}

/// A literal, and what stands behind it.
fn split_literal(text: &str) -> Result<(&str, &str)> {
    if !text.starts_with('"') {
        let end = text.find(|c: char| c == ';' || c.is_whitespace()).unwrap_or(text.len());
        return Ok(text.split_at(end));
    }
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Ok(text.split_at(at + 1)),
            _ => {}
        }
    }
    bail!("the string does not end")
}

const INTEGERS: [&str; 12] = ["i8", "i16", "i32", "i64", "i128", "isize", "u8", "u16", "u32", "u64", "u128", "usize"];
const FLOATS: [&str; 2] = ["f32", "f64"];

fn kind_of(literal: &str, annotation: Option<&str>) -> Result<Kind> {
    if literal.starts_with('"') {
        return Ok(Kind::Text);
    }
    if literal == "true" || literal == "false" {
        return Ok(Kind::Bool);
    }
    let suffix = |names: &[&'static str]| names.iter().copied().find(|name| literal.ends_with(name));
    let digits = |suffix: &str| literal.trim_end_matches(suffix).trim_end_matches('_').replace('_', "");
    if let Some(float) = suffix(&FLOATS) {
        return digits(float).parse::<f64>().map(|_| Kind::Float).context("not a number");
    }
    let kind = suffix(&INTEGERS).or(annotation).unwrap_or("i32");
    if digits(kind).parse::<i128>().is_ok() {
        return Ok(Kind::Integer(kind.to_owned()));
    }
    digits("").parse::<f64>().map(|_| Kind::Float).context("not a string, number or bool")
}

/// The source of a cell that sets some of `parameters`, each `(name, value)` as typed at the command line.
///
/// # Errors
/// When there is no parameter of that name, or the value is of another kind: the message lists what there is.
pub(crate) fn inject(parameters: &[Parameter], settings: &[(String, String)]) -> Result<String> {
    let mut source = String::from("// Parameters\n");
    for (name, value) in settings {
        let parameter = parameters.iter().find(|parameter| parameter.name == *name);
        let parameter = parameter.ok_or_else(|| anyhow!("unknown parameter `{name}`; {}", list(parameters)))?;
        let literal = parameter.literal_of(value).map_err(|error| anyhow!("{error}; {}", list(parameters)))?;
        let annotation = parameter.annotation.as_ref().map(|annotation| format!(": {annotation}")).unwrap_or_default();
        source += &format!("let {name}{annotation} = {literal};\n");
    }
    Ok(source)
}

impl Parameter {
    fn literal_of(&self, value: &str) -> Result<String> {
        let wrong = || anyhow!("parameter `{}`: wanted {} like `{}`, found `{value}`", self.name, self.kind.article(), self.literal);
        match &self.kind {
            Kind::Text => Ok(format!("{value:?}")),
            Kind::Bool => value.parse::<bool>().map(|value| value.to_string()).map_err(|_| wrong()),
            Kind::Float => {
                let number = value.parse::<f64>().ok().filter(|number| number.is_finite()).ok_or_else(wrong)?;
                let suffix = FLOATS.iter().find(|name| self.literal.ends_with(*name)).copied().unwrap_or_default();
                Ok(format!("{number:?}{suffix}"))
            }
            Kind::Integer(kind) => {
                let number = value.parse::<i128>().map_err(|_| wrong())?;
                ensure!(fits(number, kind), "parameter `{}`: wanted a {kind}, found `{number}`", self.name);
                let suffix = INTEGERS.iter().find(|name| self.literal.ends_with(*name)).copied().unwrap_or_default();
                Ok(format!("{number}{suffix}"))
            }
        }
    }
}

impl Kind {
    fn article(&self) -> String {
        format!("{} {}", if matches!(self, Kind::Integer(_)) { "an" } else { "a" }, self.name())
    }
}

fn fits(number: i128, kind: &str) -> bool {
    match kind {
        "i8" => i8::try_from(number).is_ok(),
        "i16" => i16::try_from(number).is_ok(),
        "i64" | "isize" => i64::try_from(number).is_ok(),
        "i128" => true,
        "u8" => u8::try_from(number).is_ok(),
        "u16" => u16::try_from(number).is_ok(),
        "u32" => u32::try_from(number).is_ok(),
        "u64" | "usize" => u64::try_from(number).is_ok(),
        "u128" => number >= 0,
        _ => i32::try_from(number).is_ok(),
    }
}

fn list(parameters: &[Parameter]) -> String {
    if parameters.is_empty() {
        return "the notebook has no parameters (no cell tagged `parameters`)".to_owned();
    }
    let one = |p: &Parameter| format!("\n  {} = {} ({})", p.name, p.literal, p.kind.name());
    format!("the notebook has:{}", parameters.iter().map(one).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CELL: &str = "// What to run\nlet dataset = \"mnist; = \\\"x\\\"\"; // a name\nlet epochs: usize = 3;\n\nlet rate = 1e-3;\nlet seed = 7u64;\nlet paper = false;\nlet shift = -2;\n";

    #[track_caller]
    fn check(settings: &[(&str, &str)], want: &str) {
        let settings: Vec<(String, String)> = settings.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let got = parse(CELL).and_then(|parameters| inject(&parameters, &settings));
        assert_eq!(got.unwrap_or_else(|error| format!("{error:#}")).replace("// Parameters\n", ""), want);
    }

    #[test]
    fn values_become_literals_of_the_same_kind() {
        check(&[("dataset", "a\"b"), ("epochs", "30")], "let dataset = \"a\\\"b\";\nlet epochs: usize = 30;\n");
        check(
            &[("rate", "1"), ("seed", "5000000000"), ("paper", "true"), ("shift", "-4")],
            "let rate = 1.0;\nlet seed = 5000000000u64;\nlet paper = true;\nlet shift = -4;\n",
        );
    }

    const LIST: &str = "the notebook has:\n  dataset = \"mnist; = \\\"x\\\"\" (string)\n  epochs = 3 (integer)\n  rate = 1e-3 (float)\n  seed = 7u64 (integer)\n  paper = false (bool)\n  shift = -2 (integer)";

    #[test]
    fn what_does_not_fit_is_refused() {
        check(&[("epoch", "3")], &format!("unknown parameter `epoch`; {LIST}"));
        check(&[("epochs", "many")], &format!("parameter `epochs`: wanted an integer like `3`, found `many`; {LIST}"));
        check(&[("epochs", "-1")], &format!("parameter `epochs`: wanted a usize, found `-1`; {LIST}"));
        check(&[("rate", "fast")], &format!("parameter `rate`: wanted a float like `1e-3`, found `fast`; {LIST}"));
        check(&[("paper", "1")], &format!("parameter `paper`: wanted a bool like `false`, found `1`; {LIST}"));
        check(&[("shift", "3000000000")], &format!("parameter `shift`: wanted a i32, found `3000000000`; {LIST}"));
    }

    #[test]
    fn only_literals_are_parameters() {
        for line in ["use topolab::*;", "let x = f();", "let x = 1", "let (a, b) = (1, 2);", "let s = \"open;", "let a = 1; let b = 2;"] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.to_string(), format!("the cell tagged `parameters`, line 1: wanted `let name = literal;`, found `{line}`"));
        }
    }
}
