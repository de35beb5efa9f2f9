//! The program `topolab`: all commands under one name, each with its exit codes, for people, shells and scripts.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use crate::programs::{built, idx, pipeline};

fn topolab(folder: &Path, arguments: &str) -> Output {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| built("topolab"));
    Command::new(program).args(arguments.split_whitespace()).current_dir(folder).env("COLUMNS", "100").output().unwrap()
}

#[track_caller]
fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn json(output: &Output) -> Value {
    serde_json::from_str(&text(output)).unwrap()
}

const COMMANDS: [&str; 9] = ["data convert", "data inspect", "data verify", "data serve", "train", "eval", "sweep", "table", "profile"];

#[test]
fn every_help_says_what_exit_codes_mean() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["", "data"].iter().chain(&COMMANDS) {
        for help in ["-h", "--help"] {
            let said = text(&topolab(folder.path(), &format!("{command} {help}")));
            assert!(said.ends_with("  2  something is wrong with what was typed\n"), "{command} {help}: {said}");
        }
        assert_eq!(topolab(folder.path(), &format!("{command} --no-such-option")).status.code(), Some(2), "{command}");
    }
}

#[test]
fn completions_are_scripts_that_name_every_command() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("completions"), text(&topolab(folder.path(), "completions bash"))).unwrap();
    // What bash offers behind these words.
    let offered = |words: &str| {
        let count = words.split_whitespace().count();
        let ask =
            format!("source completions; COMP_WORDS=({words} ''); COMP_CWORD={count}; _topolab topolab '' ''; echo ${{COMPREPLY[@]}}");
        text(&Command::new("bash").args(["-c", &ask]).current_dir(folder.path()).output().unwrap())
    };
    let [all, data] = ["topolab", "topolab data"].map(offered);
    for command in COMMANDS {
        let (offered, name) = command.split_once(' ').map_or((&all, command), |(_, name)| (&data, name));
        assert!(offered.split_whitespace().any(|word| word == name), "{command}: {offered}");
    }
    assert!(offered("topolab data convert").contains("--index-rows"));
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        assert!(text(&topolab(folder.path(), &format!("completions {shell}"))).contains("convert"), "{shell}");
    }
}

#[test]
fn every_command_has_a_man_page() {
    let folder = tempfile::tempdir().unwrap();
    text(&topolab(folder.path(), "man man1"));
    for command in COMMANDS {
        let page = std::fs::read_to_string(folder.path().join(format!("man1/topolab-{}.1", command.replace(' ', "-")))).unwrap();
        assert!(page.contains(".TH") && page.contains("Exit codes:"), "{command}");
    }
    std::fs::write(folder.path().join("file"), "").unwrap();
    let refused = topolab(folder.path(), "man file");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stderr).unwrap().starts_with("error: file: "));
}

#[test]
fn a_script_reads_what_was_converted_inspected_and_verified() {
    let folder = tempfile::tempdir().unwrap();
    let source = idx(folder.path(), 300, 12);
    let made = json(&topolab(folder.path(), &format!("data convert {} a.lmdb --json", source.display())));
    let found = json(&topolab(folder.path(), "data inspect a.lmdb --json --measure"));
    for name in ["store", "name", "source", "classes", "content", "bytes", "normalize"] {
        assert_eq!(made[name], found[name], "{name}");
    }
    assert_eq!((&made["left_out"], &made["continued"]), (&Value::from(Vec::<Value>::new()), &0.into()));
    let split = |number: usize| (found["splits"][number]["name"].clone(), found["splits"][number]["records"].clone());
    assert_eq!([split(0), split(1)], [("train".into(), 300.into()), ("test".into(), 100.into())]);
    // All pixels of raw stores are measured when they are converted.
    let mean = |value: &Value| value["mean"][0].as_f64().unwrap();
    assert!((mean(&found["splits"][0]["measured"]) - mean(&found["normalize"])).abs() < 1e-9);

    let verified = json(&topolab(folder.path(), "data verify a.lmdb --json"));
    assert_eq!((&verified["good"], &verified["records"]), (&true.into(), &400.into()));
    // The old names are the same program.
    assert_eq!(json(&pipeline(folder.path(), &["inspect", "a.lmdb", "--json", "--measure"])), found);
}

#[test]
fn a_network_is_profiled_without_being_run() {
    let folder = tempfile::tempdir().unwrap();
    let networks = json(&topolab(folder.path(), "profile resnet18 mobilenet_v2 --json"));
    // torchvision's own figures: parameters, and multiply-adds of one image of 224 by 224.
    let wanted = [("resnet18", 11_689_512, 1.814e9), ("mobilenet_v2", 3_504_872, 0.301e9)];
    for (network, (name, params, macs)) in networks.as_array().unwrap().iter().zip(wanted) {
        assert_eq!((&network["network"], &network["parameters"]), (&name.into(), &params.into()));
        assert!((network["macs"].as_f64().unwrap() / macs - 1.0).abs() < 1e-3, "{name}: {}", network["macs"]);
        let layers = network["layers"].as_array().unwrap();
        assert_eq!(layers.iter().map(|layer| layer["params"].as_u64().unwrap()).sum::<u64>(), params);
        let [inference, training] = ["inference", "training"].map(|name| network["memory"][name].as_u64().unwrap());
        assert!(4 * params < inference && inference < training, "{name}: {inference}, {training}");
    }
    let refused = topolab(folder.path(), "profile resnet19");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("resnet18"), "known names are listed");
}

/// A shipped unit starts the installed program with options that it has.
#[test]
fn the_service_of_the_example_can_be_started() {
    let unit = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipeline/examples/pipeline.service")).unwrap();
    let joined = unit.replace("\\\n", " ");
    let start = joined.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/topolab ")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    // The stores are not here, and that is all that is wrong.
    let arguments = start.replace("%d", &folder.path().display().to_string());
    let mut program = Command::new(built("topolab"));
    let output = program.args(arguments.split_whitespace()).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8(output.stderr).unwrap().contains("/srv/pipeline/tiny.lmdb"));
}
