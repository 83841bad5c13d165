//! The tables in `docs/` name tests, and those tests are there; so is what watches what is built of.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use axum::http::StatusCode;
use bme_service::routes::health::STARTING;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The sources of a folder by their module path below it: `queue::redis` for `queue/redis.rs`.
fn sources(folder: &Path, prefix: &str, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            sources(&path, &format!("{prefix}{name}::"), found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let module = if name == "mod" {
                prefix.trim_end_matches("::").to_owned()
            } else {
                format!("{prefix}{name}")
            };
            found.insert(module, fs::read_to_string(&path).unwrap());
        }
    }
}

/// Whether a source has a test with this name; `*` is any. A function is a test by the attribute above
/// it; other attributes and comments may stand between the two.
fn has_test(source: &str, name: &str) -> bool {
    let mut marked = false;
    for line in source.lines().map(str::trim) {
        let signature = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        if let Some(signature) = signature {
            if marked && (name == "*" || signature.split('(').next() == Some(name)) {
                return true;
            }
            marked = false;
        } else if line.starts_with("#[") {
            marked |= line == "#[test]" || line.starts_with("#[tokio::test");
        } else if !line.starts_with("//") {
            marked = false;
        }
    }
    false
}

#[test]
fn a_function_without_the_attribute_is_no_test() {
    let source = "fn helper() {}\n#[test]\n#[ignore]\n// why\nfn one() {}\nfn other() {}
        #[tokio::test(flavor = \"multi_thread\")]\nasync fn two() {}";
    for (name, is_test) in
        [("helper", false), ("one", true), ("other", false), ("two", true), ("tw", false)]
    {
        assert_eq!(has_test(source, name), is_test, "{name}");
    }
    assert!(has_test(source, "*") && !has_test("fn helper() {}", "*"));
}

#[test]
fn every_test_that_a_table_names_is_there() {
    let mut tests = BTreeMap::new();
    sources(Path::new(&format!("{ROOT}/service/tests/service")), "", &mut tests);
    let mut units = BTreeMap::new();
    sources(Path::new(&format!("{ROOT}/service/src")), "", &mut units);
    for (folder, prefix) in [("release", "release::"), ("steps", "steps::")] {
        sources(Path::new(&format!("{ROOT}/runbooks/src/{folder}")), prefix, &mut units);
    }
    let mut roads = BTreeMap::new();
    sources(Path::new(&format!("{ROOT}/tests/tests")), "", &mut roads);
    for (document, least) in [("security.md", 70), ("conformance.md", 180)] {
        let text = fs::read_to_string(format!("{ROOT}/docs/{document}")).unwrap();
        let mut seen = 0;
        for row in text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| --")) {
            let cell = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
            if ["tests", "---"].contains(&cell) || cell.starts_with("no test: ") {
                continue;
            }
            let names: Vec<_> = cell.split('`').collect();
            assert!(names.len() > 1, "{document}: no test in {row}");
            for pair in names.chunks(2).filter(|pair| pair.len() == 2) {
                let (before, name) = (pair[0], pair[1]);
                seen += 1;
                let kind = if before.ends_with("unit ") {
                    &units
                } else if before.ends_with("end to end ") {
                    &roads
                } else {
                    &tests
                };
                let (module, function) = name.rsplit_once("::").unwrap();
                let source = kind.get(module);
                let source = source.unwrap_or_else(|| panic!("{document}: no file for {name}"));
                assert!(has_test(source, function), "{document}: no test {name}");
            }
        }
        assert!(seen >= least, "{document} names {seen} tests");
    }
}

fn read(file: &str) -> String {
    fs::read_to_string(format!("{ROOT}/{file}")).unwrap()
}

/// Whoever builds, builds what the lock file names, and fails if it does not fit.
#[test]
fn every_build_is_locked() {
    let mut seen = 0;
    for file in [
        "Makefile",
        ".ci/run",
        ".github/workflows/ci.yml",
        "runbooks/src/steps/delivery/build_project.rs",
        "runbooks/src/steps/delivery/workflow.rs",
    ] {
        for line in read(file).lines() {
            let builds = ["bench", "build", "clippy", "deny", "install", "run", "test"];
            if builds.iter().any(|verb| line.contains(&format!("cargo {verb} "))) {
                assert!(line.contains("--locked"), "{file}: {line}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 9, "{seen} builds");
    // The image's.
    assert!(
        read("runbooks/src/release/build.rs").contains("\"build\", \"--release\", \"--locked\"")
    );
}

/// Of the policy of `deny.toml` what needs no list from outside.
#[test]
fn what_is_built_comes_from_one_registry_and_has_one_tls_stack() {
    let lock = read("Cargo.lock");
    let sources: BTreeSet<_> =
        lock.lines().filter_map(|line| line.strip_prefix("source = ")).collect();
    let registry = "\"registry+https://github.com/rust-lang/crates.io-index\"";
    assert_eq!(sources, BTreeSet::from([registry]));
    for stack in ["native-tls", "openssl", "openssl-sys"] {
        assert!(!lock.contains(&format!("name = \"{stack}\"\n")), "{stack}");
    }
}

/// What needs a list from outside is asked for by CI, also without a commit, and what is new is
/// proposed.
#[test]
fn advisories_and_updates_are_looked_for_every_week() {
    let ci = read(".github/workflows/ci.yml");
    for part in
        ["cron: ", "cargo deny --locked check advisories bans licenses sources", "cargo audit"]
    {
        assert!(ci.contains(part), "{part}");
    }
    let updates = read(".github/dependabot.yml");
    let parts: Vec<_> = updates.split("package-ecosystem: ").skip(1).collect();
    let kinds: Vec<_> = parts.iter().filter_map(|part| part.lines().next()).collect();
    assert_eq!(kinds, ["cargo", "github-actions"]);
    assert!(parts.iter().all(|part| part.contains("interval: weekly")), "{updates}");
}

/// The codes in the service's sources, each with the names of the statuses that are said beside it.
fn codes() -> BTreeMap<String, BTreeSet<String>> {
    let mut units = BTreeMap::new();
    sources(Path::new(&format!("{ROOT}/service/src")), "", &mut units);
    // Where it is a constant.
    let mut found = BTreeMap::from([(STARTING.to_owned(), BTreeSet::new())]);
    for (module, source) in &units {
        let code = source.split("#[cfg(test)]").next().unwrap();
        for (call, status) in [
            ("new(", ""),
            ("bad_request(", "StatusCode::BAD_REQUEST"),
            ("unavailable(", "StatusCode::SERVICE_UNAVAILABLE"),
        ] {
            let owner = if module == "problem" { "Self" } else { "Problem" };
            for arguments in code.split(&format!("{owner}::{call}")).skip(1) {
                let mut parts = arguments.split('"');
                let before = format!("{status},{}", parts.next().unwrap());
                let literal = parts.next().unwrap_or_default();
                // Where the code is an argument itself, the next literal is far away, or a sentence.
                let is_code =
                    literal.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
                if literal.is_empty() || !is_code || before.len() > 100 {
                    continue;
                }
                let names = before.split("StatusCode::").skip(1);
                let names = names.filter_map(|name| name.split(',').next()).map(str::to_owned);
                found.entry(literal.to_owned()).or_default().extend(names);
            }
        }
    }
    found
}

/// What programs branch on is written down, with the status that comes with it.
#[test]
fn every_code_of_a_problem_is_documented() {
    let codes = codes();
    let text = read("docs/problems.md");
    let rows: BTreeMap<&str, u16> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|row| {
            let (code, rest) = row.split_once("` | ").unwrap();
            (code, rest.split(' ').next().unwrap().parse().unwrap())
        })
        .collect();
    let documented: Vec<_> = rows.keys().copied().collect();
    assert_eq!(codes.keys().map(String::as_str).collect::<Vec<_>>(), documented);
    for (code, names) in &codes {
        let status = StatusCode::from_u16(rows[code.as_str()]).unwrap();
        let reason = status.canonical_reason().unwrap().to_uppercase().replace(' ', "_");
        assert!(names.iter().all(|name| *name == reason), "{code}: {names:?} and {status}");
    }
}
