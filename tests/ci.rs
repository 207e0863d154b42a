//! The jobs of `docs/ci.md`, run as the systems run them, and what a stranger's pull request can do there.

#![expect(clippy::disallowed_methods, reason = "a test prepares sites and runs jobs on them")]
#![expect(clippy::unwrap_used, reason = "a test that cannot prepare its case fails")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A case whose rendering has one host, one domain and nothing special.
const PLAIN: &str = "golden/debian-minimal";
const PROGRAM: &str = env!("CARGO_BIN_EXE_postseal");

/// The fenced blocks of the page that are in a language.
fn blocks(language: &str) -> Vec<String> {
    let page = fs::read_to_string("docs/ci.md").unwrap();
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// The `run:` steps of a workflow: the rest of the line, or the lines below that are indented deeper.
fn run_steps(workflow: &str) -> Vec<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let lines: Vec<&str> = workflow.lines().collect();
    let step = |(at, line): (usize, &&str)| {
        let command = line.trim_start().trim_start_matches("- ").strip_prefix("run: ")?;
        if command != "|" {
            return Some(format!("{command}\n"));
        }
        let below = lines.iter().skip(at + 1).take_while(|below| indent(below) > indent(line));
        Some(below.flat_map(|below| [below.trim_start(), "\n"]).collect())
    };
    lines.iter().enumerate().filter_map(step).collect()
}

/// A runner with a clone of a site in its workspace, and postseal in the cache.
struct Runner {
    _guard: tempfile::TempDir,
    home: PathBuf,
}

impl Runner {
    fn new() -> Self {
        let guard = tempfile::tempdir().unwrap();
        let home = guard.path().to_owned();
        let cloned = Command::new("cp").args(["-a", PLAIN]).arg(home.join("repository")).status().unwrap();
        assert!(cloned.success());
        let cached = home.join("repository/.postseal/built/bin");
        fs::create_dir_all(&cached).unwrap();
        symlink(PROGRAM, cached.join("postseal")).unwrap();
        fs::write(home.join("summary"), "").unwrap();
        Self { _guard: guard, home }
    }

    fn site(&self) -> PathBuf {
        self.home.join("repository")
    }

    fn summary(&self) -> String {
        fs::read_to_string(self.home.join("summary")).unwrap()
    }

    /// Runs a script as the runner does: from a file, by `bash -e`, in the workspace.
    fn step(&self, script: &str) -> (i32, String, String) {
        let file = self.home.join("step.sh");
        fs::write(&file, script).unwrap();
        let mut command = Command::new("bash");
        let command = command.arg("-e").arg(file).current_dir(self.site()).env("CI", "true");
        let command = command.env("GITHUB_ACTIONS", "true").env("GITHUB_WORKSPACE", self.site());
        text(&command.env("GITHUB_STEP_SUMMARY", self.home.join("summary")).output().unwrap())
    }

    /// Runs the workflow up to its first step that fails.
    fn workflow(&self) -> (i32, String, String) {
        let workflow = blocks("yaml").into_iter().find(|block| block.contains("runs-on:")).unwrap();
        let steps = run_steps(&workflow);
        assert_eq!(steps.len(), 2, "{steps:?}");
        let mut all = (0, String::new(), String::new());
        for step in steps {
            let (code, out, err) = self.step(&step);
            all = (code, all.1 + &out, all.2 + &err);
            if code != 0 {
                break;
            }
        }
        all
    }
}

fn text(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn replace(path: &Path, from: &str, to: &str) {
    let before = fs::read_to_string(path).unwrap();
    assert!(before.contains(from), "{} has no {from:?}", path.display());
    fs::write(path, before.replacen(from, to, 1)).unwrap();
}

/// The lines that the runner takes for commands, as actions/runner reads them.
fn commands(output: &str) -> Vec<&str> {
    output.split(['\n', '\r']).filter(|line| line.trim_start().starts_with("::") || line.contains("##[")).collect()
}

#[test]
fn the_workflow_passes_a_site_that_is_as_blessed() {
    let runner = Runner::new();
    let (code, out, err) = runner.workflow();
    assert_eq!((code, out.as_str(), err.as_str()), (0, "0 changed, 0 added, 0 missing, 17 identical\n", ""));
    assert_eq!(runner.summary(), "### postseal diff\n\n0 changed, 0 added, 0 missing, 17 identical\n\n");
}

#[test]
fn the_workflow_fails_with_an_annotation_for_each_file_that_differs() {
    let runner = Runner::new();
    replace(&runner.site().join("postseal.toml"), "dmarc.reports", "dmarc.policy = \"reject\"\ndmarc.reports");
    fs::remove_file(runner.site().join("golden/.gitattributes")).unwrap();
    fs::write(runner.site().join("golden/dns/a,b.zone"), "").unwrap();
    let (code, out, err) = runner.workflow();
    let why = "settings, templates or postseal itself changed, or golden/ was edited";
    let expected = [
        format!("::error file=golden/.gitattributes,line=1,title=golden drift::rendered, but not in golden/: {why}"),
        format!(
            "::error file=golden/dns/a%2Cb.zone,line=1,title=golden drift::in golden/, but no longer rendered: {why}"
        ),
        format!(
            "::error file=golden/dns/example.com.zone,line=10,title=golden drift::\
             what is rendered differs from here on: {why}"
        ),
    ];
    assert_eq!((code, err.as_str()), (1, ""));
    assert_eq!(commands(&out), expected);
    assert!(out.ends_with("\n1 changed, 1 added, 1 missing, 15 identical\n"), "{out}");
    let row = format!("| `dns/example.com.zone` | 10 | changed | {why} |\n");
    assert!(runner.summary().contains(&row), "{}", runner.summary());
}

#[test]
fn the_workflow_points_at_the_setting_that_is_wrong() {
    let runner = Runner::new();
    replace(&runner.site().join("postseal.toml"), "platform =", "plattform =");
    let (code, out, err) = runner.workflow();
    assert_eq!((code, out.as_str()), (2, ""));
    let places: Vec<_> = commands(&err).into_iter().map(|command| command.rsplit_once("::").unwrap().0).collect();
    let expected = [
        "::error file=postseal.toml,line=11,col=1,title=missing-key",
        "::error file=postseal.toml,line=13,col=1,title=unknown-key",
    ];
    assert_eq!(places, expected, "{err}");
    assert!(err.contains("did you mean `platform`?") && err.ends_with("\n2 errors\n"), "{err}");
}

#[test]
fn no_text_of_a_pull_request_is_a_command_to_the_runner() {
    let runner = Runner::new();
    let hostile =
        "::error::a\n ::add-mask::b\n\t::warning::c\n##[error]d\n ; ##[group]e\n\u{a0}::notice::f\r::debug::g\n";
    let zone = runner.site().join("golden/dns/example.com.zone");
    fs::write(&zone, format!("{hostile}{}{hostile}", fs::read_to_string(&zone).unwrap())).unwrap();
    // Lines that both sides have stand in the diff with a blank before them.
    let both = runner.site().join("templates/rspamd/local.d/dmarc.conf");
    fs::create_dir_all(both.parent().unwrap()).unwrap();
    fs::write(&both, format!("{hostile}new\n")).unwrap();
    let golden = runner.site().join("golden/mail.example.com/root/etc/rspamd/local.d/dmarc.conf");
    fs::write(golden, format!("{hostile}old\n")).unwrap();
    fs::write(runner.site().join("golden/dns/x\n::error::h ##[error]i"), "").unwrap();
    for format in ["", " --format human", " --format json"] {
        let (code, out, err) = runner.step(&format!("{PROGRAM} diff{format}"));
        assert_eq!((code, err.as_str()), (1, ""));
        let found = commands(&out);
        let expected = if format.is_empty() { 3 } else { 0 };
        assert_eq!(found.len(), expected, "{found:#?}");
        assert!(found.iter().all(|command| command.starts_with("::error file=golden/")), "{found:#?}");
    }
    let rows: Vec<String> =
        runner.summary().lines().filter(|line| line.starts_with("| `")).map(str::to_owned).collect();
    assert_eq!(rows.len(), 3, "{rows:#?}");
    // Wrong settings are quoted in messages.
    replace(&runner.site().join("postseal.toml"), "[ca]", "[ca]\n##[error]j = 1\n\"::error::k\" = 1\n");
    let (code, out, err) = runner.step(&format!("{PROGRAM} diff"));
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(commands(&err).iter().all(|command| command.starts_with("::error file=postseal.toml,line=")), "{err}");
}

#[test]
fn a_site_below_the_top_of_its_repository_is_named_from_there() {
    let runner = Runner::new();
    fs::create_dir(runner.site().join("mail")).unwrap();
    for part in ["golden", "postseal.lock", "postseal.toml"] {
        fs::rename(runner.site().join(part), runner.site().join("mail").join(part)).unwrap();
    }
    fs::remove_file(runner.site().join("mail/golden/.gitattributes")).unwrap();
    for script in ["cd mail && postseal diff", "postseal diff --site mail", "postseal diff --site ./mail/"] {
        let (code, out, _) = runner.step(&script.replace("postseal", PROGRAM));
        assert_eq!(code, 1);
        assert!(commands(&out)[0].starts_with("::error file=mail/golden/.gitattributes,line=1,"), "{script}: {out}");
    }
}

#[test]
fn a_summary_that_is_full_or_cannot_be_written_changes_no_exit_code() {
    let runner = Runner::new();
    fs::write(runner.home.join("summary"), "x".repeat(1024 * 1024 - 10)).unwrap();
    let (code, _, err) = runner.step(&format!("{PROGRAM} diff"));
    assert_eq!((code, err.as_str()), (0, "postseal: the job summary is full, so this is not in it\n"));
    assert_eq!(runner.summary().len(), 1024 * 1024 - 10);
    let (code, _, err) = runner.step(&format!("GITHUB_STEP_SUMMARY=/nowhere/summary {PROGRAM} diff"));
    assert_eq!(code, 0);
    assert!(err.starts_with("postseal: the job summary could not be written: "), "{err}");
    // A pipe that nobody reads would be waited for.
    let (code, _, err) = runner.step(&format!("mkfifo pipe; GITHUB_STEP_SUMMARY=pipe timeout 60 {PROGRAM} diff"));
    assert_eq!(code, 0);
    assert!(err.starts_with("postseal: the job summary could not be written: "), "{err}");
}

#[test]
fn the_job_for_a_shell_tells_drift_from_failure() {
    let script = blocks("sh").pop().unwrap();
    let site = |runner: &Runner| {
        let bin = runner.home.join("bin");
        fs::create_dir_all(&bin).unwrap();
        let _ = symlink(PROGRAM, bin.join("postseal"));
        let place = runner.home.join("site");
        let _ = symlink("repository", place);
        let command = format!(
            "cd {} && export PATH={}:$PATH\nunset GITHUB_ACTIONS\n{script}",
            runner.home.display(),
            bin.display()
        );
        runner.step(&command)
    };
    let runner = Runner::new();
    assert_eq!(site(&runner), (0, String::new(), String::new()));
    fs::remove_file(runner.site().join("golden/.gitattributes")).unwrap();
    let (code, out, _) = site(&runner);
    assert_eq!(code, 1);
    assert!(out.starts_with("site differs") && out.contains("+* -text\n"), "{out}");
    fs::remove_file(runner.site().join("postseal.lock")).unwrap();
    let (code, out, err) = site(&runner);
    assert_eq!((code, out.as_str()), (2, "site could not be compared\n"), "{err}");
}

#[test]
fn the_job_for_gitlab_compares() {
    let job = blocks("yaml").into_iter().find(|block| block.contains("script:")).unwrap();
    let lines: Vec<&str> = job.lines().filter_map(|line| line.strip_prefix("    - ")).collect();
    assert_eq!(lines, ["postseal diff"]);
}
