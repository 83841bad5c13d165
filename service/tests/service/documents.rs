//! The tables in `docs/` name tests, and those tests are there.

use std::{collections::BTreeMap, fs, path::Path};

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

/// Whether a source has a test with this name; `*` is any. A test says so above its name.
fn has_test(source: &str, name: &str) -> bool {
    let is_test = |line: &str| line == "#[test]" || line.starts_with("#[tokio::test");
    let mut lines = source.lines().map(str::trim);
    if name == "*" {
        return lines.any(is_test);
    }
    let mut attributed = false;
    lines.any(|line| {
        let is_it = line.split_once(&format!("fn {name}(")).is_some();
        let found = is_it && attributed;
        attributed = is_test(line) || attributed && line.starts_with("#[");
        found
    })
}

#[test]
fn every_test_that_a_table_names_is_there() {
    let mut tests = BTreeMap::new();
    sources(Path::new(&format!("{ROOT}/service/tests/service")), "", &mut tests);
    let mut units = BTreeMap::new();
    sources(Path::new(&format!("{ROOT}/service/src")), "", &mut units);
    for (document, least) in [("security.md", 40), ("conformance.md", 60)] {
        let text = fs::read_to_string(format!("{ROOT}/docs/{document}")).unwrap();
        let mut seen = 0;
        for row in text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| --")) {
            let cell = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
            if ["tests", "---"].contains(&cell) {
                continue;
            }
            let names: Vec<_> = cell.split('`').collect();
            assert!(names.len() > 1, "{document}: no test in {row}");
            for pair in names.chunks(2).filter(|pair| pair.len() == 2) {
                let (before, name) = (pair[0], pair[1]);
                seen += 1;
                if before.ends_with("unit ") {
                    let source = units.get(name);
                    let source = source.unwrap_or_else(|| panic!("{document}: no module {name}"));
                    assert!(has_test(source, "*"), "{document}: no test in {name}");
                    continue;
                }
                let (module, function) = name.rsplit_once("::").unwrap();
                let source = tests.get(module);
                let source = source.unwrap_or_else(|| panic!("{document}: no file for {name}"));
                assert!(has_test(source, function), "{document}: no test {name}");
            }
        }
        assert!(seen >= least, "{document} names {seen} tests");
    }
}
