//! Many runs, written down as one and what changes.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Run;
use crate::{Error, Result};

/// A run, and grids of what changes in it: every combination of the values of a grid is a run.
///
/// ```toml
/// [run]
/// data = "mnist"
/// recipe = { epochs = 12, lr = 1e-3, optimizer = { name = "adam_w", betas = [0.9, 0.999], eps = 1e-8, weight_decay = 0.0 } }
/// architecture = { family = "dense_mlp", inputs = 784, classes = 10, width = 8, depth = 16, max_links = 0 }
///
/// [[grid]]
/// "architecture.depth" = [16, 24, 32]
/// "architecture.max_links" = [0, 1, 2, 4]
/// seed = [0, 1, 2]
/// ```
///
/// A name with dots reaches into what it names. There may be several grids, which add to each other, and a run of two grids is one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// A [`Run`] but for what the grids say.
    pub run: Map<String, Value>,
    /// Values by dotted names. Without a grid there is the one run.
    #[serde(default)]
    pub grid: Vec<Map<String, Value>>,
}

impl Plan {
    /// The plan in a file: TOML, or JSON where the name ends in `.json`.
    ///
    /// # Errors
    /// When it cannot be read, or is no plan.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|source| Error::io(path, "read the plan", source))?;
        let plan = match path.extension() {
            Some(json) if json == "json" => serde_json::from_str(&text).map_err(|error| error.to_string()),
            _ => toml::from_str(&text).map_err(|error| error.to_string()),
        };
        plan.map_err(|error| Error::mismatch(path.display().to_string(), "a plan", error.trim_end()))
    }

    /// Its runs: grid after grid, in each the last name changes fastest, `seed` after all others.
    ///
    /// # Errors
    /// When a value is not a list, or a combination is no run; the message names it.
    pub fn runs<D: DeserializeOwned + PartialEq>(&self) -> Result<Vec<Run<D>>> {
        let one = [Map::new()];
        let grids = if self.grid.is_empty() { &one[..] } else { &self.grid };
        let mut runs: Vec<Run<D>> = Vec::new();
        for grid in grids {
            for changes in combinations(grid)? {
                let run = self.with(&changes)?;
                if !runs.contains(&run) {
                    runs.push(run);
                }
            }
        }
        Ok(runs)
    }

    /// The run with these changes.
    fn with<D: DeserializeOwned>(&self, changes: &[(&str, &Value)]) -> Result<Run<D>> {
        let mut run = self.run.clone();
        for (name, value) in changes {
            set(&mut run, name, value)?;
        }
        serde_json::from_value(Value::Object(run)).map_err(|error| {
            let changes: Vec<String> = changes.iter().map(|(name, value)| format!("{name} = {value}")).collect();
            let place = if changes.is_empty() { String::new() } else { format!(" with {}", changes.join(", ")) };
            Error::mismatch(format!("plan: run{place}"), "architecture, data, recipe and seed", error)
        })
    }
}

/// Every combination of the values of a grid.
fn combinations(grid: &Map<String, Value>) -> Result<Vec<Vec<(&str, &Value)>>> {
    let mut names: Vec<&String> = grid.keys().collect();
    names.sort_by_key(|name| *name == "seed");
    let mut all = vec![vec![]];
    for name in names {
        let Value::Array(values) = &grid[name] else {
            return Err(Error::mismatch(format!("plan: grid: {name}"), "a list of values", &grid[name]));
        };
        all = all.iter().flat_map(|before| values.iter().map(|value| [&before[..], &[(name.as_str(), value)]].concat())).collect();
    }
    Ok(all)
}

/// Sets what a dotted name names.
fn set(run: &mut Map<String, Value>, name: &str, value: &Value) -> Result<()> {
    let (parents, last) = name.rsplit_once('.').map_or((None, name), |(parents, last)| (Some(parents), last));
    let mut inside = run;
    for parent in parents.iter().flat_map(|parents| parents.split('.')) {
        inside = match inside.entry(parent).or_insert_with(|| Value::Object(Map::new())) {
            Value::Object(next) => next,
            other => return Err(Error::mismatch(format!("plan: grid: {name}: `{parent}`"), "a table", other)),
        };
    }
    inside.insert(last.to_owned(), value.clone());
    Ok(())
}
