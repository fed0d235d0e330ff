//! The public API, one line an item, as rustdoc sees it: `public_api.txt` beside this file.
//!
//! A change of it is a change that users notice. Where it is meant, `BLESS=1 cargo test --test public_api` writes the
//! file anew, and CHANGELOG.md says what changed. What users of the last release would not survive needs a version that says
//! so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// Crates whose types users of the library have anyway.
const STANDARD: [&str; 3] = ["alloc", "core", "std"];

/// Crates that a feature of their name is for.
const OPTIONAL: [&str; 2] = ["serde", "serde_core"];

/// Traits of the compiler's own.
const INTERNAL: [&str; 3] = ["Freeze", "StructuralPartialEq", "UnsafeUnpin"];

/// What rustdoc says of the library, in its JSON format. That is not stable: stable compilers have it behind this
/// variable. The directory is its own, for with that variable other things are built anew.
fn rustdoc() -> Value {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("public-api");
    let output = Command::new(env!("CARGO"))
        .args(["rustdoc", "--package=cgroup-reaper", "--lib", "--all-features", "--target-dir"])
        .arg(&target)
        .args(["--", "-Zunstable-options", "--output-format=json"])
        .env("RUSTC_BOOTSTRAP", "1")
        .env_remove("RUSTFLAGS")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = fs::read(target.join("doc/cgroup_reaper.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Each item by its id.
struct Docs(Value);

impl Docs {
    /// An item, if it is public.
    fn item(&self, id: &Value) -> Option<&Value> {
        self.0["index"].get(id.to_string()).filter(|item| item["crate_id"] == 0)
    }

    /// The lines of an item and of what is in it. `prefix` is the path that it is in.
    fn list(&self, id: &Value, prefix: &str, lines: &mut BTreeSet<String>) {
        let Some(item) = self.item(id) else { return };
        let (kind, inner) = item["inner"].as_object().unwrap().iter().next().unwrap();
        let name = item["name"].as_str().unwrap_or_default();
        let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}::{name}") };
        let attributes = item["attrs"].to_string();
        let open = if attributes.contains("non_exhaustive") { ", non_exhaustive" } else { "" };
        let line = match kind.as_str() {
            "module" if inner["is_crate"] == true => return self.list_all(&inner["items"], "", lines),
            "module" => {
                self.list_all(&inner["items"], &path, lines);
                format!("mod {path}")
            }
            "use" => return self.list(&inner["id"], prefix, lines),
            "struct" | "enum" | "union" => {
                let (traits, own): (Vec<_>, Vec<_>) =
                    inner["impls"].as_array().into_iter().flatten().partition(|id| {
                        self.item(id).is_some_and(|item| !item["inner"]["impl"]["trait"].is_null())
                    });
                own.into_iter().for_each(|id| self.list(id, &path, lines));
                let own = |id: &&Value| self.is_for(id, item);
                let traits: BTreeSet<String> =
                    traits.into_iter().filter(own).filter_map(|id| self.implemented(id)).collect();
                let traits = traits.into_iter().collect::<Vec<_>>().join(", ");
                lines.insert(format!("impl for {path}: {traits}"));
                self.list_all(&inner["variants"], &path, lines);
                self.list_all(&inner["kind"]["plain"]["fields"], &path, lines);
                self.list_all(&inner["kind"]["tuple"], &path, lines);
                let hidden = inner["kind"]["plain"]["has_stripped_fields"] == true;
                format!("{kind} {path}{open}{}", if hidden { ", private fields" } else { "" })
            }
            "variant" => {
                self.list_all(&inner["kind"]["tuple"], &path, lines);
                self.list_all(&inner["kind"]["struct"]["fields"], &path, lines);
                format!("variant {path}{open}")
            }
            "struct_field" => format!("field {path}: {}", type_of(inner)),
            "function" => format!("fn {path}{}", signature(inner)),
            "assoc_const" | "constant" => format!("const {path}: {}", type_of(&inner["type"])),
            "impl" => return self.list_all(&inner["items"], prefix, lines),
            _ => panic!("no words for a {kind}: {inner}"),
        };
        lines.insert(line);
    }

    fn list_all(&self, ids: &Value, prefix: &str, lines: &mut BTreeSet<String>) {
        ids.as_array().into_iter().flatten().for_each(|id| self.list(id, prefix, lines));
    }

    /// Whether an implementation is one for this type: `From<A> for B` is among those of `A` too.
    fn is_for(&self, id: &Value, of: &Value) -> bool {
        let implemented = &self.item(id).expect("public")["inner"]["impl"]["for"];
        implemented["resolved_path"]["id"] == of["id"]
    }

    /// The trait of an implementation, if it is one that users can rely on.
    fn implemented(&self, id: &Value) -> Option<String> {
        let inner = &self.item(id)?["inner"]["impl"];
        let name = named(&inner["trait"]);
        let not = if inner["is_negative"] == true { "!" } else { "" };
        let usable = inner["blanket_impl"].is_null() && !INTERNAL.contains(&name.as_str());
        usable.then(|| format!("{not}{name}"))
    }

    /// Types and traits of other crates that public items mention: where, and what.
    fn foreign(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut found = BTreeMap::new();
        for item in self.0["index"].as_object().unwrap().values().filter(|item| item["crate_id"] == 0) {
            self.find_foreign(&item["inner"], item, &mut found);
        }
        found
    }

    fn find_foreign(&self, value: &Value, item: &Value, found: &mut BTreeMap<String, BTreeSet<String>>) {
        if let (Some(_), Some(id)) = (value["path"].as_str(), value.get("id")) {
            let named = &self.0["paths"][id.to_string()];
            let of = self.0["external_crates"][named["crate_id"].to_string()]["name"].as_str();
            if let Some(of) = of.filter(|of| !STANDARD.contains(of) && !OPTIONAL.contains(of)) {
                let place = format!("{}:{}", item["span"]["filename"], item["span"]["begin"][0]);
                found.entry(place).or_default().insert(format!("{of}: {}", named["path"]));
            }
        }
        match value {
            Value::Array(values) => values.iter().for_each(|value| self.find_foreign(value, item, found)),
            Value::Object(values) => values.values().for_each(|value| self.find_foreign(value, item, found)),
            _ => {}
        }
    }
}

fn joined(values: &Value, with: &str, text: impl Fn(&Value) -> String) -> String {
    values.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(with)
}

/// A type or trait with its arguments.
fn named(path: &Value) -> String {
    let written = path["path"].as_str().unwrap();
    // `io::Error` is another than `fmt::Error`; longer paths are those of the compiler.
    let short = written.matches("::").count() < 2;
    let name = if short { written } else { written.rsplit("::").next().unwrap() };
    let args = joined(&path["args"]["angle_bracketed"]["args"], ", ", argument);
    let bindings = joined(&path["args"]["angle_bracketed"]["constraints"], ", ", |binding| {
        let value = &binding["binding"]["equality"]["type"];
        let value = if value.is_null() { binding["binding"].to_string() } else { type_of(value) };
        format!("{} = {value}", binding["name"].as_str().unwrap())
    });
    let args: Vec<String> = [args, bindings].into_iter().filter(|args| !args.is_empty()).collect();
    if args.is_empty() { name.to_owned() } else { format!("{name}<{}>", args.join(", ")) }
}

fn argument(value: &Value) -> String {
    match value["lifetime"].as_str() {
        Some(lifetime) => lifetime.to_owned(),
        None => type_of(&value["type"]),
    }
}

fn bound(value: &Value) -> String {
    match value["trait_bound"]["trait"].is_null() {
        true => value["outlives"].as_str().map_or_else(|| value.to_string(), str::to_owned),
        false => named(&value["trait_bound"]["trait"]),
    }
}

/// A type as it is written.
fn type_of(value: &Value) -> String {
    let Some((kind, inner)) = value.as_object().and_then(|object| object.iter().next()) else {
        panic!("no type: {value}");
    };
    match kind.as_str() {
        "resolved_path" => named(inner),
        "primitive" | "generic" => inner.as_str().unwrap().to_owned(),
        "tuple" => format!("({})", joined(inner, ", ", type_of)),
        "slice" => format!("[{}]", type_of(inner)),
        "impl_trait" => format!("impl {}", joined(inner, " + ", bound)),
        "borrowed_ref" => {
            let lifetime = inner["lifetime"].as_str().map(|name| format!("{name} ")).unwrap_or_default();
            let mutable = if inner["is_mutable"] == true { "mut " } else { "" };
            format!("&{lifetime}{mutable}{}", type_of(&inner["type"]))
        }
        "qualified_path" => format!("{}::{}", type_of(&inner["self_type"]), inner["name"].as_str().unwrap()),
        _ => panic!("no words for this type: {value}"),
    }
}

fn signature(function: &Value) -> String {
    let (sig, header) = (&function["sig"], &function["header"]);
    let mut generics = Vec::new();
    for parameter in function["generics"]["params"].as_array().into_iter().flatten() {
        let kind = &parameter["kind"]["type"];
        // Of `impl Trait` the type of the argument tells.
        if kind["is_synthetic"] != true && kind["bounds"] != json!([]) {
            let name = parameter["name"].as_str().unwrap();
            generics.push(format!("{name}: {}", joined(&kind["bounds"], " + ", bound)));
        }
    }
    for predicate in function["generics"]["where_predicates"].as_array().into_iter().flatten() {
        let predicate = &predicate["bound_predicate"];
        generics.push(format!(
            "{}: {}",
            type_of(&predicate["type"]),
            joined(&predicate["bounds"], " + ", bound)
        ));
    }
    let generics = if generics.is_empty() { String::new() } else { format!("<{}>", generics.join(", ")) };
    let inputs = joined(&sig["inputs"], ", ", |input| {
        format!("{}: {}", input[0].as_str().unwrap(), type_of(&input[1]))
    });
    let output =
        if sig["output"].is_null() { String::new() } else { format!(" -> {}", type_of(&sig["output"])) };
    let qualifiers =
        ["const", "async", "unsafe"].into_iter().filter(|name| header[format!("is_{name}")] == true);
    let qualifiers: String = qualifiers.map(|name| format!(", {name}")).collect();
    format!("{generics}({inputs}){output}{qualifiers}")
}

#[test]
fn the_public_api_is_the_one_listed_and_has_no_type_of_another_crate() {
    let docs = Docs(rustdoc());
    let foreign = docs.foreign();
    assert!(foreign.is_empty(), "the public API mentions other crates: {foreign:#?}");

    let mut lines = BTreeSet::new();
    docs.list(&docs.0["root"], "", &mut lines);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/public_api.txt");
    if std::env::var_os("BLESS").is_some() {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(&file, text).unwrap();
    }
    let listed = fs::read_to_string(&file).unwrap_or_default();
    let listed: BTreeSet<String> = listed.lines().map(str::to_owned).collect();
    let gone = listed.difference(&lines).map(|line| format!("- {line}"));
    let new = lines.difference(&listed).map(|line| format!("+ {line}"));
    let changes: Vec<String> = gone.chain(new).collect();
    assert!(
        changes.is_empty(),
        "the public API has changed; see the head of this file:\n{}",
        changes.join("\n")
    );
}

/// The listing and the version of the last release, if this is a clone that has one.
fn released() -> Option<(BTreeSet<String>, String)> {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?;
        output.status.success().then(|| String::from_utf8(output.stdout).expect("text"))
    };
    let tag = git(&["describe", "--tags", "--abbrev=0", "--match=v[0-9]*"])?;
    let tag = tag.trim();
    let listing = git(&["show", &format!("{tag}:tests/public_api.txt")])?;
    Some((listing.lines().map(str::to_owned).collect(), tag[1..].to_owned()))
}

/// What is gone, or is new where users could name all there is.
fn breaking(old: &BTreeSet<String>, new: &BTreeSet<String>) -> Vec<String> {
    let has = |listing: &BTreeSet<String>, kind: &str, name: &str| {
        listing.iter().find_map(|line| line.strip_prefix(kind)?.strip_prefix(name).map(str::to_owned))
    };
    let gone = old.difference(new).filter(|line| match line.strip_prefix("impl for ") {
        Some(line) => {
            let (name, traits) = line.split_once(": ").expect("a type and its traits");
            let now = has(new, "impl for ", &format!("{name}: ")).unwrap_or_default();
            let now: BTreeSet<_> = now.split(", ").collect();
            !traits.split(", ").all(|of| now.contains(of) || of.starts_with('!'))
        }
        None => true,
    });
    let added = new.difference(old).filter(|line| {
        let (kind, name) = line.split_once(' ').expect("a kind and a name");
        let owner = name.split(": ").next().and_then(|name| name.rsplit_once("::")).map(|(owner, _)| owner);
        let (Some(owner), "field" | "variant") = (owner, kind) else { return false };
        // Nothing after the name: it is exhaustive, with no private field.
        ["enum ", "struct ", "variant "]
            .iter()
            .any(|kind| has(old, kind, owner).is_some_and(|rest| rest.is_empty()))
    });
    gone.map(|line| format!("- {line}")).chain(added.map(|line| format!("+ {line}"))).collect()
}

/// Whether cargo takes `new` for a program that asks for `old`.
fn is_compatible(old: &str, new: &str) -> bool {
    let significant = |version: &str| {
        let numbers: Vec<u32> = version.split('.').map(|number| number.parse().expect("a number")).collect();
        let leading = numbers.iter().take_while(|number| **number == 0).count();
        numbers.into_iter().take(leading + 1).collect::<Vec<_>>()
    };
    significant(old) == significant(new)
}

#[test]
fn what_was_released_is_still_there_or_the_version_says_so() {
    let Some((old, version)) = released() else { return println!("nothing has been released yet") };
    let new = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/public_api.txt")).unwrap();
    let changes = breaking(&old, &new.lines().map(str::to_owned).collect());
    assert!(
        changes.is_empty() || !is_compatible(&version, env!("CARGO_PKG_VERSION")),
        "programs written for {version} would not build:\n{}",
        changes.join("\n")
    );
}

#[test]
fn breaking_changes_are_told_from_others() {
    let listing = |lines: &[&str]| lines.iter().map(|line| line.to_string()).collect::<BTreeSet<_>>();
    let released = [
        "enum Closed",
        "enum Open, non_exhaustive",
        "variant Closed::A",
        "variant Open::A",
        "struct Plain",
        "struct Hidden, private fields",
        "field Plain::a: u64",
        "fn Plain::get(self: &Self) -> u64",
        "impl for Plain: Clone, Send",
    ];
    let told = |gone: &[&str], new: &[&str]| {
        let mut lines = listing(&released);
        gone.iter().for_each(|line| assert!(lines.remove(*line), "{line}"));
        lines.extend(listing(new));
        breaking(&listing(&released), &lines)
    };
    assert!(told(&[], &[]).is_empty());
    let additions = [
        "variant Open::B",
        "field Hidden::a: u64",
        "fn Plain::set(self: &mut Self)",
        "struct More",
        "field More::a: u64",
    ];
    assert_eq!(told(&[], &additions), [""; 0]);
    assert_eq!(told(&["impl for Plain: Clone, Send"], &["impl for Plain: Clone, Eq, Send"]), [""; 0]);
    assert_eq!(told(&["impl for Plain: Clone, Send"], &["impl for Plain: !Send, Clone"]).len(), 1);
    assert_eq!(told(&[], &["variant Closed::B"]), ["+ variant Closed::B"]);
    assert_eq!(told(&[], &["field Plain::b: u64"]), ["+ field Plain::b: u64"]);
    assert_eq!(told(&["variant Open::A"], &[]), ["- variant Open::A"]);
    let get = "fn Plain::get(self: &Self) -> u64";
    assert_eq!(told(&[get], &["fn Plain::get(self: &Self) -> u32"]), [format!("- {get}")]);

    for (old, new) in [("0.1.0", "0.1.9"), ("1.2.3", "1.3.0"), ("0.0.1", "0.0.1")] {
        assert!(is_compatible(old, new), "{old} {new}");
    }
    for (old, new) in [("0.1.0", "0.2.0"), ("1.2.3", "2.0.0"), ("0.0.1", "0.0.2"), ("0.9.0", "1.0.0")] {
        assert!(!is_compatible(old, new), "{old} {new}");
    }
}
