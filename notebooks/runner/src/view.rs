//! What rust-analyzer is told of the packages that cells may use.
//!
//! evcxr asks rust-analyzer for the type of every new variable and for completions, and rust-analyzer asks `cargo metadata` which sources
//! to read. Cells link [`crate::library`], of which cargo knows nothing. So this program stands in for cargo there: it hands every call
//! on, and adds to the metadata of a session's crate the package `topolab` with those below it whose types a cell can come to hold.
//! All others (compilers of codecs, network stacks, derive macros) would be read for nothing: with them a session took
//! four times as long to start.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::places::Places;

/// Packages of others whose types a cell's variables have.
const SHOWN: [&str; 11] = [
    "candle-core",
    "candle-nn",
    "polars",
    "polars-core",
    "polars-error",
    "polars-utils",
    "polars-dtype",
    "polars-row",
    "polars-arrow",
    "half",
    "tokio",
];

/// The package that re-exports them.
const TOP: &str = "topolab";
/// The packages of a session that see [`TOP`]: its cells, and what stands in for tokio.
const SEES_TOP: [&str; 2] = ["ctx", "tokio"];

/// Says which cargo this program stands in for.
const CARGO: &str = "TOPOLAB_CARGO";
/// Says what `CARGO_HOME` is for it.
pub(crate) const CARGO_HOME: &str = "TOPOLAB_CARGO_HOME";
/// Says where the view is.
const VIEW: &str = "TOPOLAB_VIEW";

/// The view: packages as `cargo metadata` describes them, and what each of them depends on.
///
/// # Errors
/// When cargo fails.
pub(crate) fn of(places: &Places) -> Result<Value> {
    let host = places.ask_rustc(&["--print", "host-tuple"])?;
    let mut command = places.cargo();
    command.args(["metadata", "--format-version=1", "--filter-platform", &host]);
    Ok(select(metadata(&mut command)?))
}

fn metadata(command: &mut Command) -> Result<Value> {
    let output = command.stderr(Stdio::inherit()).output().context("start cargo")?;
    ensure!(output.status.success(), "cargo metadata failed ({})", output.status);
    serde_json::from_slice(&output.stdout).context("read cargo's metadata")
}

/// Of all packages, ours and those of [`SHOWN`] that they use.
fn select(mut metadata: Value) -> Value {
    let name_of = |package: &Value| package["name"].as_str().unwrap_or_default().to_owned();
    let packages = take(&mut metadata["packages"]);
    let ids: BTreeMap<String, String> = packages.iter().map(|package| (id(package), name_of(package))).collect();
    let mut nodes: BTreeMap<String, Value> = take(&mut metadata["resolve"]["nodes"]).into_iter().map(|node| (id(&node), node)).collect();
    let is_shown = |id: &str| id.starts_with("path+") || ids.get(id).is_some_and(|name| SHOWN.contains(&name.as_str()));
    let mut reached = BTreeSet::new();
    let mut left: Vec<String> = ids.iter().filter(|(id, name)| *name == TOP && id.starts_with("path+")).map(|(id, _)| id.clone()).collect();
    while let Some(next) = left.pop() {
        let Some(node) = nodes.get_mut(&next) else { continue };
        if !reached.insert(next) {
            continue;
        }
        // Below, what is not a package of the view would be unknown to rust-analyzer.
        let dependencies =
            take(&mut node["deps"]).into_iter().filter(|dependency| is_used(dependency) && is_shown(text(&dependency["pkg"])));
        let dependencies: Vec<Value> = dependencies.collect();
        node["dependencies"] = dependencies.iter().map(|dependency| dependency["pkg"].clone()).collect();
        left.extend(dependencies.iter().map(|dependency| text(&dependency["pkg"]).to_owned()));
        node["deps"] = Value::from(dependencies);
    }
    let mut packages: Vec<Value> = packages.into_iter().filter(|package| reached.contains(&id(package))).collect();
    for package in &mut packages {
        let targets = take(&mut package["targets"]);
        let is_library = |target: &Value| target["kind"].as_array().into_iter().flatten().any(|kind| kind == "lib");
        package["targets"] = targets.into_iter().filter(is_library).collect();
    }
    let nodes: Vec<Value> = reached.iter().filter_map(|id| nodes.remove(id)).collect();
    json!({ "packages": packages, "nodes": nodes })
}

/// Whether a dependency is more than one of tests or of the build.
fn is_used(dependency: &Value) -> bool {
    dependency["dep_kinds"].as_array().is_none_or(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
}

/// Adds the view to the metadata of a session.
fn join(mut session: Value, mut view: Value) -> Value {
    let known: BTreeSet<String> = session["packages"].as_array().into_iter().flatten().map(id).collect();
    let nodes = take(&mut view["nodes"]);
    let top = nodes.iter().map(id).find(|id| name_in(id) == TOP);
    if let Some(all) = session["packages"].as_array_mut() {
        all.extend(take(&mut view["packages"]).into_iter().filter(|package| !known.contains(&id(package))));
    }
    if let Some(all) = session["resolve"]["nodes"].as_array_mut() {
        for node in all.iter_mut().filter(|node| SEES_TOP.contains(&name_in(&id(node)))) {
            let dependency = json!({ "name": TOP, "pkg": top, "dep_kinds": [{ "kind": null, "target": null }] });
            node["deps"].as_array_mut().into_iter().for_each(|deps| deps.push(dependency.clone()));
            node["dependencies"].as_array_mut().into_iter().for_each(|ids| ids.push(json!(top)));
        }
        all.extend(nodes.into_iter().filter(|node| !known.contains(&id(node))));
    }
    session
}

/// The name in an id of a package in a folder: `path+file:///a/ctx#1.0.0`, or `path+file:///a/b#ctx@1.0.0`.
fn name_in(id: &str) -> &str {
    let Some((path, rest)) = id.strip_prefix("path+").and_then(|id| id.rsplit_once('#')) else { return "" };
    match rest.split_once('@') {
        Some((name, _)) => name,
        None => path.rsplit('/').next().unwrap_or_default(),
    }
}

fn id(value: &Value) -> String {
    text(&value["id"]).to_owned()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn take(value: &mut Value) -> Vec<Value> {
    match value.take() {
        Value::Array(values) => values,
        _ => vec![],
    }
}

/// Lets rust-analyzer find this program as cargo: variables for the process that holds it.
///
/// It prefers `$CARGO_HOME/bin/cargo`, where rustup's stands, to all others.
///
/// # Errors
/// When the link cannot be made.
pub(crate) fn stand_in(places: &Places, session: &Path, view: &Path) -> Result<Vec<(&'static str, OsString)>> {
    let home = session.join("cargo-home");
    let (bin, program) = (home.join("bin"), env::current_exe().context("find this program's own path")?);
    let link = std::fs::create_dir_all(&bin).and_then(|()| symlink(program, bin.join("cargo")));
    link.with_context(|| format!("make {}", bin.join("cargo").display()))?;
    let real = PathBuf::from(places.ask_rustc(&["--print", "sysroot"])?).join("bin/cargo");
    let real = if real.is_file() { real.into() } else { OsString::from("cargo") };
    let old = env::var_os("CARGO_HOME").or_else(|| Some(env::home_dir()?.join(".cargo").into())).unwrap_or_default();
    Ok(vec![("CARGO_HOME", home.into()), (CARGO_HOME, old), (CARGO, real), (VIEW, view.into())])
}

/// Whether this program was started in the place of cargo.
pub(crate) fn is_stand_in() -> bool {
    let name = env::args_os().next().map(PathBuf::from);
    env::var_os(CARGO).is_some() && name.is_some_and(|name| name.file_name().is_some_and(|name| name == "cargo"))
}

/// Does what cargo would do, but for the metadata of a session's crate.
///
/// # Errors
/// When cargo does not start, or the view cannot be read.
pub(crate) fn answer() -> Result<ExitCode> {
    let mut cargo = Command::new(env::var_os(CARGO).context("no cargo to stand in for")?);
    let args: Vec<OsString> = env::args_os().skip(1).collect();
    cargo.args(&args).env("CARGO_HOME", env::var_os(CARGO_HOME).unwrap_or_default());
    let session = env::var_os("EVCXR_TMPDIR").map(|folder| PathBuf::from(folder).join("Cargo.toml"));
    let is_for_session = args.iter().any(|arg| session.as_ref().is_some_and(|session| *arg == **session));
    let wants_packages = args.first().is_some_and(|arg| arg == "metadata") && !args.iter().any(|arg| arg == "--no-deps");
    if !(is_for_session && wants_packages) {
        return Err(cargo.exec()).context("start cargo");
    }
    let path = PathBuf::from(env::var_os(VIEW).context("no view of the packages")?);
    let view = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let view = serde_json::from_slice(&view).with_context(|| format!("read {}", path.display()))?;
    let joined = join(metadata(&mut cargo)?, view);
    serde_json::to_writer(std::io::stdout(), &joined).context("write to rust-analyzer")?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(id: &str, name: &str) -> Value {
        json!({"id": id, "name": name, "targets": [{"kind": ["lib"]}, {"kind": ["test"]}]})
    }

    fn node(id: &str, dependencies: &[(&str, Value)]) -> Value {
        let deps: Vec<Value> = dependencies.iter().map(|(pkg, kind)| json!({"pkg": pkg, "dep_kinds": [{"kind": kind}]})).collect();
        json!({"id": id, "deps": deps, "dependencies": dependencies.iter().map(|(pkg, _)| *pkg).collect::<Vec<_>>()})
    }

    #[test]
    fn a_session_sees_our_packages_and_those_that_are_shown() {
        let (top, lab, tensors, tonic) =
            ("path+file:///w/notebooks#topolab@0.1.0", "path+file:///w/lab#0.1.0", "reg#candle-core@1", "reg#tonic@1");
        let all = json!({
            "packages": [package(top, "topolab"), package(lab, "lab"), package(tensors, "candle-core"), package(tonic, "tonic")],
            "resolve": {"nodes": [
                node(top, &[(lab, Value::Null), (tonic, Value::Null)]),
                node(lab, &[(tensors, Value::Null), (tonic, Value::Null)]),
                node(tensors, &[(tonic, json!("dev"))]),
                node(tonic, &[]),
            ]},
        });
        let cells = "path+file:///t/17#ctx@1.0.0";
        let session = json!({"packages": [package(cells, "ctx")], "resolve": {"nodes": [node(cells, &[])]}});
        let joined = join(session, select(all));
        let ids: Vec<&str> = joined["packages"].as_array().unwrap().iter().map(|package| text(&package["id"])).collect();
        assert_eq!(ids, [cells, top, lab, tensors]);
        assert_eq!(joined["packages"][1]["targets"], json!([{"kind": ["lib"]}]));
        let nodes = joined["resolve"]["nodes"].as_array().unwrap();
        let of = |id: &str| nodes.iter().find(|node| node["id"] == id).unwrap();
        assert_eq!(of(cells)["deps"][0], json!({"name": "topolab", "pkg": top, "dep_kinds": [{"kind": null, "target": null}]}));
        assert_eq!((&of(top)["dependencies"], &of(lab)["dependencies"]), (&json!([lab]), &json!([tensors])));
        assert_eq!(of(tensors)["deps"], json!([]));
    }

    #[test]
    fn a_package_in_a_folder_is_known_by_its_id() {
        assert_eq!(name_in("path+file:///target/evcxr/17/tokio#1.0.0"), "tokio");
        assert_eq!(name_in("path+file:///target/evcxr/17#ctx@1.0.0"), "ctx");
        assert_eq!(name_in("registry+https://github.com/rust-lang/crates.io-index#tokio@1.54.1"), "");
    }
}
