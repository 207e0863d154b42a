//! `svg`: whether a logo is one that receivers show (BIMI), and how a drawing becomes one.

use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;

use crate::cli::bimi;
use crate::cli::failure::Failure;
use crate::cli::report::Report;
use crate::diag::{Severity, Source};
use crate::env::Env;
use crate::names::{DomainName, visible};
use crate::policy::bimi::Mark;
use crate::policy::svg::{self, LARGEST_DRAWING, Wishes};
use crate::store::files;

/// `svg ...`
#[derive(Debug, clap::Subcommand)]
pub(super) enum SvgCommand {
    /// Check whether logos conform to SVG Tiny PS, as BIMI wants them (exit code 1 if one does not)
    Check(Check),
    /// Make a drawing conform without changing the picture, or tell what hinders
    Fix(Fix),
}

/// `svg check`
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// The logos
    #[arg(value_name = "FILE", required = true)]
    files: Vec<Utf8PathBuf>,
    /// The logo's certificate (VMC or CMC) with its chain, in PEM: also check that it is for this logo and valid today
    #[arg(long, value_name = "FILE", requires = "domain")]
    certificate: Option<Utf8PathBuf>,
    /// The domain that the certificate must name
    #[arg(long, value_name = "DOMAIN", requires = "certificate")]
    domain: Option<DomainName>,
}

/// `svg fix`
#[derive(Debug, clap::Args)]
pub(super) struct Fix {
    /// The drawing, as an editor saved it
    #[arg(value_name = "FILE")]
    file: Utf8PathBuf,
    /// The file to write [default: standard output]
    #[arg(long, value_name = "FILE", conflicts_with = "in_place")]
    output: Option<Utf8PathBuf>,
    /// Replace the drawing, if what comes of it conforms
    #[arg(long)]
    in_place: bool,
    /// The title: the name of the brand [default: the drawing's own, else the file's name]
    #[arg(long, value_name = "TEXT", value_parser = title)]
    title: Option<String>,
    /// Put a drawing whose frame is no square into the middle of one
    #[arg(long)]
    square: bool,
}

/// Reads a title.
fn title(text: &str) -> Result<String, String> {
    let plain = !text.trim().is_empty() && text.chars().count() <= 64 && !text.chars().any(char::is_control);
    plain.then(|| text.trim().to_owned()).ok_or_else(|| "write 1 to 64 characters on one line".to_owned())
}

/// `svg ...`
pub(super) fn obey(env: &dyn Env, command: &SvgCommand) -> Result<Report, Failure> {
    match command {
        SvgCommand::Check(args) => check(env, args),
        SvgCommand::Fix(args) => fix(args),
    }
}

/// Reads a drawing; a path of a pipe or a device is refused.
fn read(file: &Utf8Path) -> Result<(Arc<Source>, u32), Failure> {
    let Some((content, mode)) = files::read_given_file(file, LARGEST_DRAWING)? else {
        let message = format!("there is no file `{}`", visible(file.as_str()));
        return Err(Failure::input("file-name", message, "look at the name, and in which directory you are"));
    };
    let source = svg::text(file.to_owned(), content.expose()).map_err(|wrong| Failure::Check(vec![*wrong]))?;
    Ok((source, mode))
}

fn check(env: &dyn Env, args: &Check) -> Result<Report, Failure> {
    let certificate = args.certificate.as_deref().zip(args.domain.as_ref());
    let certificate =
        certificate.map(|(file, domain)| Ok::<_, Failure>((given_mark(file)?, file, domain))).transpose()?;
    let (mut findings, mut text) = (Vec::new(), String::new());
    for file in &args.files {
        let found = match read(file) {
            Ok((source, _)) => {
                let mut found = svg::check(&source);
                if let Some((mark, file, domain)) = &certificate {
                    found.extend(bimi::misfits(mark, (&source.text, domain), file));
                    found.extend(bimi::ended(mark, file, env.now()));
                }
                found
            }
            Err(Failure::Check(found)) => found,
            Err(other) => return Err(other),
        };
        if !found.iter().any(|finding| finding.severity == Severity::Error) {
            text.push_str(&format!("{} conforms to SVG Tiny PS\n", visible(file.as_str())));
        }
        findings.extend(found);
    }
    if findings.iter().any(|finding| finding.severity == Severity::Error) {
        return Err(Failure::Check(findings));
    }
    let files: Vec<&str> = args.files.iter().map(|file| file.as_str()).collect();
    let json = json!({ "conform": files, "findings": crate::cli::draw::to_json(&findings) });
    Ok(Report::fine(text, json).warn(&findings))
}

/// Reads a certificate that the command line names.
fn given_mark(file: &Utf8Path) -> Result<Mark, Failure> {
    let Some((content, _)) = files::read_given_file(file, bimi::LARGEST_CERTIFICATE)? else {
        let message = format!("there is no file `{}`", visible(file.as_str()));
        return Err(Failure::input("file-name", message, "look at the name, and in which directory you are"));
    };
    bimi::mark(content.expose(), file).map_err(|wrong| Failure::Check(vec![*wrong]))
}

fn fix(args: &Fix) -> Result<Report, Failure> {
    let (source, mode) = read(&args.file)?;
    let fallback = args.file.file_stem().unwrap_or("logo");
    let wishes = Wishes { title: args.title.as_deref(), fallback, square: args.square };
    let fixed = svg::fix(&source, wishes).map_err(Failure::Check)?;
    let logo = Arc::new(Source { path: args.file.clone(), text: fixed.text.clone() });
    let warnings = svg::check(&logo);
    let to = if args.in_place { Some(&args.file) } else { args.output.as_ref() };
    let octets = fixed.text.len();
    let json =
        json!({ "file": to.map(|to| to.as_str()), "changes": fixed.changes, "octets": octets, "svg": fixed.text });
    let Some(to) = to else { return Ok(Report::fine(fixed.text, json)) };
    let is_same = args.in_place && source.text == fixed.text;
    if !is_same {
        files::write_named(to, fixed.text.as_bytes(), if args.in_place { mode } else { 0o644 })?;
    }
    let shown = visible(to.as_str());
    let mut text = if is_same {
        format!("{shown} conforms as it is\n")
    } else {
        format!("wrote {shown}: {octets} octets, conforms to SVG Tiny PS\n")
    };
    for change in &fixed.changes {
        text.push_str(&format!("  {change}\n"));
    }
    Ok(Report::fine(text, json).warn(&warnings).done(format!("{shown} is written")))
}
