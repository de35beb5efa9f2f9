//! `pipeline/ticket.schema.json` says of a ticket what the server takes: the same fields, names, defaults and obligations.

use std::collections::BTreeSet;

use pipeline::flight::Ticket;
use pipeline::loader::Config;
use serde_json::{Value, json};

const SCHEMA: &str = include_str!("../../pipeline/ticket.schema.json");

/// A name that nothing has; asked for it, serde tells all that there are.
const UNKNOWN: &str = "no_such";

fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

/// A ticket in which `value` stands where the definition `name` of the schema applies; `""` is the ticket itself.
fn ticket(name: &str, value: &Value) -> Value {
    match name {
        "" => value.clone(),
        "loader" | "group" => json!({"dataset": "d", name: value}),
        "shard" | "order" | "normalize" | "last" | "channels" | "output" => json!({"dataset": "d", "loader": {name: value}}),
        "blocks" | "weighted" => ticket("order", &json!({name: value})),
        "given" | "contrast" => ticket("normalize", &json!({name: value})),
        "transform" => json!({"dataset": "d", "loader": {"transforms": [value]}}),
        transform => ticket("transform", &json!({transform: value})),
    }
}

fn read(name: &str, value: &Value) -> Result<Ticket, serde_json::Error> {
    serde_json::from_value(ticket(name, value))
}

/// The names that serde wanted in place of [`UNKNOWN`].
#[track_caller]
fn wanted(name: &str, value: &Value) -> BTreeSet<String> {
    let message = read(name, value).unwrap_err().to_string();
    let (found, wanted) = message.split_once(", expected ").unwrap_or_else(|| panic!("{name}: {message}"));
    assert!(found.contains(UNKNOWN), "{name}: {message}");
    wanted.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn keys(object: &Value) -> BTreeSet<String> {
    object.as_object().unwrap().keys().cloned().collect()
}

/// The objects of the schema, with their names.
fn objects(schema: &Value) -> Vec<(String, &Value)> {
    let named = schema["$defs"].as_object().unwrap().iter().map(|(name, object)| (name.clone(), object));
    let objects: Vec<_> = named.chain([(String::new(), schema)]).filter(|(_, object)| object["type"] == "object").collect();
    assert!(objects.len() > 15, "found {}", objects.len());
    objects
}

#[test]
fn fields_are_those_of_the_schema() {
    let schema = schema();
    for (name, object) in objects(&schema) {
        // serde passes over further fields in these, which the schema refuses; that theirs are known, the next test says.
        if ["given", "blocks", "weighted"].contains(&name.as_str()) {
            continue;
        }
        let mut value = object["examples"][0].clone();
        value[UNKNOWN] = json!(0);
        assert_eq!(wanted(&name, &value), keys(&object["properties"]), "{name}");
    }
}

#[test]
fn what_the_schema_requires_is_required_and_nothing_else() {
    let schema = schema();
    for (name, object) in objects(&schema) {
        let example = &object["examples"][0];
        assert_eq!(keys(example), keys(&object["properties"]), "{name}: the example has every field");
        read(&name, example).unwrap_or_else(|error| panic!("{name}: {error}"));
        for key in keys(example) {
            let mut without = example.clone();
            without.as_object_mut().unwrap().remove(&key);
            let required = object["required"].as_array().unwrap().contains(&json!(key));
            assert_eq!(read(&name, &without).is_err(), required, "{name}: without {key}");
        }
    }
}

/// The names of an enumeration of the schema: plain strings, and objects of one field.
fn variants(schema: &Value) -> BTreeSet<String> {
    let parts = schema["oneOf"].as_array().cloned().unwrap_or_else(|| vec![schema.clone()]);
    let plain = parts.iter().filter_map(|part| part["enum"].as_array()).flatten().map(|name| name.as_str().unwrap().to_owned());
    let with_fields = parts.iter().filter(|part| part["type"] == "object").flat_map(|part| keys(&part["properties"]));
    plain.chain(with_fields).collect()
}

#[test]
fn names_of_choices_are_those_of_the_schema() {
    let schema = schema();
    let (defs, loader) = (&schema["$defs"], &schema["$defs"]["loader"]["properties"]);
    for name in ["order", "normalize"] {
        assert_eq!(wanted(name, &json!(UNKNOWN)), variants(&defs[name]), "{name}");
    }
    assert_eq!(wanted("transform", &json!({UNKNOWN: {}})), variants(&defs["transform"]));
    for name in ["last", "channels", "output"] {
        assert_eq!(wanted(name, &json!(UNKNOWN)), variants(&loader[name]), "{name}");
    }
    let between = &defs["rotate"]["properties"]["between"];
    assert_eq!(wanted("rotate", &json!({"degrees": [0, 1], "between": UNKNOWN})), variants(between));
    let per = &defs["weighted"]["properties"]["per"];
    assert_eq!(wanted("weighted", &json!({"weights": [], "per": UNKNOWN})), variants(per));
}

#[test]
fn defaults_are_those_of_the_schema() {
    let schema = schema();
    let loader = schema["$defs"]["loader"]["properties"].as_object().unwrap();
    let stated: Value = loader.iter().map(|(name, field)| (name.clone(), field["default"].clone())).collect();
    assert_eq!(stated, serde_json::to_value(Config::default()).unwrap());

    // Of every object: the fields that may be missing, given their stated defaults, change nothing.
    for (name, object) in objects(&schema) {
        let properties = object["properties"].as_object().unwrap();
        let mut least = object["examples"][0].clone();
        least.as_object_mut().unwrap().retain(|key, _| object["required"].as_array().unwrap().contains(&json!(key)));
        let mut full = least.clone();
        for (key, field) in properties.iter().filter(|(_, field)| field.get("default").is_some()) {
            full[key] = field["default"].clone();
        }
        assert_eq!(read(&name, &least).unwrap(), read(&name, &full).unwrap(), "{name}");
    }
}
