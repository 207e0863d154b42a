//! Keeps the order of the layers: a module uses only modules that `src/lib.rs` lists before it, and the pure ones touch
//! nothing outside.

#![expect(clippy::expect_used, reason = "a test that cannot read the sources fails")]

use std::fs;
use std::path::{Path, PathBuf};

/// The first module of `src/lib.rs` that may reach outside.
const FIRST_IMPURE: &str = "env";

fn modules() -> Vec<String> {
    let lib = fs::read_to_string("src/lib.rs").expect("src/lib.rs can be read");
    lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';').map(str::to_owned)).collect()
}

fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
    entries
        .flat_map(|entry| sources(&entry.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .collect()
}

fn each_module(mut visit: impl FnMut(usize, &str, &Path, &str)) {
    for (position, module) in modules().iter().enumerate() {
        let mut files = sources(Path::new(&format!("src/{module}.rs")));
        files.extend(sources(Path::new(&format!("src/{module}"))));
        assert!(!files.is_empty(), "src/lib.rs lists `{module}`, which has no file");
        for file in files {
            let text = fs::read_to_string(&file).expect("a source can be read");
            // Tests at the bottom of a file may use anything.
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            visit(position, module, &file, code);
        }
    }
}

#[test]
fn a_module_uses_only_modules_listed_before_it() {
    let order = modules();
    let mut wrong = Vec::new();
    each_module(|position, module, file, code| {
        for later in order.iter().skip(position + 1) {
            let used =
                |line: &&str| !line.trim_start().starts_with("//") && line.contains(&format!("crate::{later}::"));
            wrong.extend(
                code.lines()
                    .filter(used)
                    .map(|line| format!("{}: {module} must not use {later}: {line}", file.display())),
            );
        }
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_pure_modules_touch_nothing_outside() {
    let order = modules();
    let first_impure = order.iter().position(|module| module == FIRST_IMPURE).expect("src/lib.rs lists env");
    let doors = [
        "std::fs",
        "std::process",
        "std::env::",
        "std::net::Tcp",
        "std::net::Udp",
        "println!",
        "eprintln!",
        "SystemTime",
        "now_utc",
    ];
    let mut wrong = Vec::new();
    each_module(|position, _, file, code| {
        if position < first_impure {
            let found = doors.iter().filter(|door| code.contains(**door));
            wrong.extend(found.map(|door| format!("{} uses {door}", file.display())));
        }
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
