//! `tick` does what is due, once, and what fails stops nothing else. Real files, a ledger, and a real program in sendmail's
//! place; the clock is the test's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, dead_code, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "a test changes sites, and writes a program in sendmail's place")]

#[path = "support/surroundings.rs"]
mod surroundings;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use surroundings::{Answer, Surroundings, snapshot};

const MADE: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

fn at(days: i64) -> Surroundings {
    Surroundings { now: MADE + Duration::days(days), ..Surroundings::default() }
}

fn run(days: i64, site: &Path, arguments: &str) -> Answer {
    at(days).run(site, arguments.split(' '))
}

fn tick(days: i64, site: &Path) -> Answer {
    run(days, site, "tick")
}

/// A site of Alice's whose server certificates an ACME client keeps, so that users' certificates alone end.
fn site() -> (tempfile::TempDir, PathBuf) {
    let guard = tempfile::tempdir().unwrap();
    let site = guard.path().join("site");
    let files = "--mx-certificate /a.pem --mx-key /a.key --submission-certificate /a.pem --submission-key /a.key";
    let made = run(0, &site, &format!("init example.com --user alice@example.com --address 203.0.113.10 {files}"));
    assert_eq!(made.exit_code, 0, "{}", made.err);
    (guard, site)
}

/// Switches the mail on, with a program in sendmail's place: it keeps each message in a file of its own.
fn notify(site: &Path, script: &str) -> PathBuf {
    let around = site.parent().unwrap();
    let (program, mails) = (around.join("sendmail"), around.join("mails"));
    fs::create_dir_all(&mails).unwrap();
    fs::write(&program, format!("#!/bin/sh\ncd {}\n{script}\n", mails.display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let settings = site.join("postseal.toml");
    let text = fs::read_to_string(&settings).unwrap();
    let notify = format!("notify.before = [7, 30]\nnotify.sendmail = \"{}\"\n", program.display());
    fs::write(&settings, notify + &text).unwrap();
    mails
}

const KEEP: &str = "n=$(ls | wc -l); echo \"$*\" >\"args-$n-$$\"; cat >\"mail-$n-$$\"";

fn mails(directory: &Path) -> Vec<String> {
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("mail-"));
    paths.sort();
    paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

fn trust_list(site: &Path) -> String {
    fs::read_to_string(site.join("out/mail.example.com/root/etc/mail/postseal/clients.pem")).unwrap()
}

#[test]
fn where_nothing_is_due_nothing_is_written() {
    let (_guard, site) = site();
    let before = snapshot(&site);
    let done = tick(10, &site);
    assert_eq!((done.exit_code, done.out.as_str(), done.err.as_str()), (0, "nothing is due\n", ""));
    assert_eq!(run(10, &site, "tick --quiet").out, "");
    assert_eq!(snapshot(&site), before);
}

#[test]
fn who_has_ended_is_taken_off_the_trust_list_and_what_to_install_is_said() {
    let (_guard, site) = site();
    assert_eq!(run(100, &site, "user add alice@example.com --device phone").exit_code, 0);
    let before = trust_list(&site);
    assert_eq!(tick(365, &site).out.lines().next(), Some("recorded the end of 1 certificate"));
    let (after, twice) = (trust_list(&site), tick(365, &site));
    assert_eq!(before.matches("BEGIN").count(), 2);
    assert_eq!(after.matches("BEGIN").count(), 1);
    assert!(before.contains(&after));
    assert_eq!(twice.out, "nothing is due\n");
    let done = tick(466, &site);
    let out = format!("{}/out", site.display());
    assert_eq!(
        done.out,
        format!(
            "recorded the end of 1 certificate\nbrought {out}/ up to date\n\
             install {out}/mail.example.com/ on mail.example.com, then: systemctl restart opensmtpd\n"
        )
    );
    // An empty list would stop smtpd: the placeholder stands there.
    assert_eq!(trust_list(&site).matches("BEGIN").count(), 1);
}

#[test]
fn a_dry_run_says_what_would_be_done_and_touches_nothing() {
    let (_guard, site) = site();
    let before = snapshot(&site);
    let said = run(365, &site, "tick --dry-run");
    assert_eq!((said.exit_code, said.out.as_str()), (0, "would record the end of 1 certificate\n"));
    assert_eq!(snapshot(&site), before);
    assert_eq!(run(10, &site, "tick --dry-run").out, "nothing is due\n");
}

#[test]
fn settings_that_are_wrong_keep_no_ended_certificate_on_the_ledgers_list() {
    let (_guard, site) = site();
    let settings = fs::read_to_string(site.join("postseal.toml")).unwrap();
    fs::write(site.join("postseal.toml"), format!("nonsense = 1\n{settings}")).unwrap();
    let done = tick(365, &site);
    assert_eq!((done.exit_code, done.out.as_str()), (1, "recorded the end of 1 certificate\n"));
    assert!(done.err.contains("error[unknown-key]") && done.err.contains("error[not-done]"), "{}", done.err);
    fs::write(site.join("postseal.toml"), settings).unwrap();
    assert!(tick(365, &site).out.starts_with("brought "));
}

#[test]
fn a_server_certificate_that_cannot_be_renewed_is_named_and_stops_nothing_else() {
    let (_guard, site) = surroundings::site();
    fs::remove_file(site.join("state/ca.passphrase")).unwrap();
    let done = tick(365, &site);
    assert_eq!(done.exit_code, 1);
    assert!(done.out.starts_with("recorded the end of 1 certificate\nbrought "), "{}", done.out);
    assert!(done.err.contains("error[ca-passphrase]"), "{}", done.err);
    assert!(done.err.contains("error[not-done]: server certificates that are due are not renewed"), "{}", done.err);
    // The host's only certificate has ended, and still others are shut out.
    let removed = run(366, &site, "user remove alice@example.com");
    assert_eq!(removed.exit_code, 0, "{}", removed.err);
}

#[test]
fn a_server_certificate_in_its_last_third_is_renewed_once() {
    let (_guard, site) = surroundings::site();
    assert_eq!(tick(130, &site).out, "nothing is due\n");
    assert_eq!(run(134, &site, "tick --dry-run").out, "would renew the server certificate of mail.example.com\n");
    let done = tick(134, &site);
    assert_eq!(done.exit_code, 0, "{}", done.err);
    let first = "renewed the server certificate of mail.example.com until 2027-10-24\n";
    assert!(done.out.starts_with(first), "{}", done.out);
    assert!(done.out.contains("on mail.example.com, then: systemctl restart opensmtpd\n"), "{}", done.out);
    assert_eq!(tick(134, &site).out, "nothing is due\n");
    assert_eq!(run(134, &site, "status --format nagios --warn 1d --critical 0d").exit_code, 1, "the handout waits");
}

#[test]
fn a_crl_is_made_anew_at_half_its_life_and_its_end_is_told_before_it_locks_anyone_out() {
    let (_guard, site) = site();
    let settings = fs::read_to_string(site.join("postseal.toml")).unwrap();
    fs::write(site.join("postseal.toml"), settings.replace("# clients.trust = \"pinned\"", "clients.trust = \"ca\""))
        .unwrap();
    assert_eq!(run(0, &site, "user add bob@example.com").exit_code, 0);
    assert_eq!(run(0, &site, "dkim confirm 202611r 202611e").exit_code, 0);
    let nagios = |days| run(days, &site, "status --format nagios --warn 1d --critical 0d");
    assert_eq!(nagios(1).exit_code, 0, "{}", nagios(1).out);
    let due = (1..60).find(|days| nagios(*days).exit_code == 1).unwrap();
    let ended = (1..60).find(|days| nagios(*days).exit_code == 2).unwrap();
    assert!(due < ended && nagios(ended).out.contains("servers that heed it refuse everybody"), "{due} {ended}");
    assert_eq!(tick(due - 1, &site).out, "nothing is due\n");
    assert_eq!(run(due, &site, "tick --dry-run").out, "would make 1 CRL\n");
    // Without the passphrase it is named.
    let passphrase = site.join("state/ca.passphrase");
    fs::rename(&passphrase, site.join("passphrase")).unwrap();
    let without = tick(due, &site);
    assert_eq!((without.exit_code, without.out.as_str()), (1, ""), "{}", without.err);
    assert!(without.err.contains("error[not-done]: CRLs that are due are not made"), "{}", without.err);
    let given = format!("tick --ca-passphrase-file {}", site.join("passphrase").display());
    let done = run(due, &site, &given);
    assert_eq!(done.exit_code, 0, "{}", done.err);
    assert!(done.out.starts_with("made a new CRL\nbrought ") && done.out.contains("dovecot"), "{}", done.out);
    assert_eq!(nagios(ended).exit_code, 1, "{}", nagios(ended).out);
    assert_eq!(tick(due, &site).out, "nothing is due\n");
}

#[test]
fn what_was_handed_out_for_a_certificate_goes_with_it() {
    let (_guard, site) = site();
    let handout = site.join("handout/alice@example.com");
    let password = site.join("state/passwords/alice@example.com/default.p12-password");
    assert!(handout.exists() && password.exists());
    assert_eq!(tick(365, &site).err, "");
    assert!(!handout.exists() && !password.exists());
    // Nothing is left that the next run would take for what a killed one left.
    assert_eq!(tick(366, &site).err, "");
    assert!(!site.join("state/swept").exists());
}

#[test]
fn a_handout_that_somebody_removed_is_not_missed() {
    let (_guard, site) = site();
    fs::remove_dir_all(site.join("handout")).unwrap();
    assert_eq!((tick(365, &site).exit_code, tick(366, &site).exit_code), (0, 0));
}

#[test]
fn each_user_is_told_once_at_each_step() {
    let (_guard, site) = site();
    let kept = notify(&site, KEEP);
    assert_eq!(tick(334, &site).out.lines().filter(|line| line.starts_with("told")).count(), 0);
    assert_eq!(tick(335, &site).out, "told 1 user by mail that a certificate ends\n");
    assert_eq!(tick(336, &site).out, "nothing is due\n");
    assert_eq!(
        run(358, &site, "tick --dry-run").out,
        "would send mail: 1 user is to be told that a certificate ends\n"
    );
    assert_eq!(tick(358, &site).out, "told 1 user by mail that a certificate ends\n");
    assert_eq!(tick(359, &site).out, "nothing is due\n");
    let mails = mails(&kept);
    assert_eq!(mails.len(), 2);
    let (head, body) = mails[1].split_once("\n\n").unwrap();
    let fields: Vec<&str> = head.lines().filter(|line| !line.starts_with("Message-ID: ")).collect();
    assert_eq!(
        fields,
        [
            "Date: Wed, 17 Nov 2027 12:00:00 +0000",
            "From: postmaster@example.com",
            "To: alice@example.com",
            "Subject: Your certificate for default ends on 2027-11-24",
            "Auto-Submitted: auto-generated",
            "MIME-Version: 1.0",
            "Content-Type: text/plain; charset=utf-8",
            "Content-Transfer-Encoding: quoted-printable",
        ]
    );
    assert!(body.contains("\nends on 2027-11-24, in 7 days.\n"), "{body}");
    let arguments = fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().path());
    for path in arguments.filter(|path| path.to_str().unwrap().contains("args-")) {
        assert_eq!(fs::read_to_string(path).unwrap(), "-i -t -f postmaster@example.com\n");
    }
}

#[test]
fn a_mail_that_sendmail_did_not_take_is_sent_by_the_next_run() {
    let (_guard, site) = site();
    assert_eq!(run(0, &site, "user add bob@example.com").exit_code, 0);
    // Bob's mail is refused for now.
    let kept = notify(
        &site,
        "cat >it; if grep -q '^To: bob' it && ! [ -e ok ]; then echo 'no \u{1b}[31mroom' >&2; exit 75; fi; mv it mail-$$",
    );
    let done = tick(335, &site);
    assert_eq!(done.exit_code, 1);
    assert!(done.out.ends_with("told 1 user by mail that a certificate ends\n"), "{}", done.out);
    assert!(done.err.contains("error[sendmail]") && done.err.contains("no \\u{1b}[31mroom"), "{}", done.err);
    assert!(done.err.contains("error[not-done]: 1 user could not be told"), "{}", done.err);
    assert_eq!(mails(&kept).len(), 1);
    fs::write(kept.join("ok"), "").unwrap();
    assert_eq!(tick(336, &site).out, "told 1 user by mail that a certificate ends\n");
    assert_eq!(mails(&kept).iter().filter(|mail| mail.contains("\nTo: bob@example.com\n")).count(), 1);
    assert_eq!(mails(&kept).len(), 2);
}

#[test]
fn a_sendmail_that_is_missing_is_named_once_and_the_rest_is_done() {
    let (guard, site) = site();
    for n in 0..5 {
        assert_eq!(run(0, &site, &format!("user add u{n}@example.com --days 500")).exit_code, 0);
    }
    notify(&site, KEEP);
    fs::remove_file(guard.path().join("sendmail")).unwrap();
    let done = tick(480, &site);
    assert_eq!(done.exit_code, 1);
    assert!(done.out.starts_with("recorded the end of 1 certificate\n"), "{}", done.out);
    assert_eq!(done.err.matches("error[sendmail]").count(), 1, "{}", done.err);
    assert!(done.err.contains("5 users could not be told"), "{}", done.err);
}

#[test]
fn two_runs_at_once_tell_each_user_once() {
    let (_guard, site) = site();
    assert_eq!(run(0, &site, "user add bob@example.com").exit_code, 0);
    let kept = notify(&site, &format!("sleep 0.3; {KEEP}"));
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..2).map(|_| scope.spawn(|| tick(335, &site))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| answer.exit_code == 0), "{answers:?}");
    assert_eq!(mails(&kept).len(), 2);
}

#[test]
fn a_program_that_reads_nothing_and_writes_much_is_not_waited_for() {
    let (_guard, site) = site();
    notify(&site, "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2; exit 0");
    assert_eq!(tick(335, &site).exit_code, 0);
}

#[test]
fn the_text_of_the_mail_is_the_administrators_in_whatever_language() {
    let (_guard, site) = site();
    let kept = notify(&site, KEEP);
    fs::create_dir_all(site.join("templates/mail")).unwrap();
    let own = site.join("templates/mail/expiry.txt");
    fs::write(&own, "Dein Gerät »{{ device | text }}« läuft am {{ day | text }} ab.\n.\nFrom hier\n").unwrap();
    assert_eq!(run(1, &site, "render").exit_code, 0);
    assert_eq!(tick(335, &site).exit_code, 0);
    let mail = &mails(&kept)[0];
    let (_, body) = mail.split_once("\n\n").unwrap();
    assert_eq!(body, "Dein Ger=C3=A4t =C2=BBdefault=C2=AB l=C3=A4uft am 2027-11-24 ab.\n=2E\n=46rom hier\n");
}

#[test]
fn a_mistake_in_the_text_of_the_mail_is_found_before_one_is_due() {
    let (_guard, site) = site();
    fs::create_dir_all(site.join("templates/mail")).unwrap();
    let own = site.join("templates/mail/expiry.txt");
    for (text, code) in [("{{ devise | text }}", "template"), ("{{ device }}", "template-unquoted")] {
        fs::write(&own, text).unwrap();
        let answer = run(1, &site, "render");
        assert!(answer.exit_code == 2 && answer.err.contains(&format!("error[{code}]")), "{answer:?}");
    }
}

#[test]
fn a_secret_in_the_text_of_the_mail_is_sent_to_nobody() {
    let (_guard, site) = site();
    let kept = notify(&site, KEEP);
    let secret = fs::read_to_string(site.join("state/passwords/alice@example.com/password")).unwrap();
    fs::create_dir_all(site.join("templates/mail")).unwrap();
    fs::write(site.join("templates/mail/expiry.txt"), format!("{}\n", secret.trim_end())).unwrap();
    let done = tick(335, &site);
    assert_eq!(done.exit_code, 4, "{}", done.err);
    assert!(done.err.contains("error[secret-in-golden]") && !done.err.contains(secret.trim_end()), "{}", done.err);
    assert_eq!(mails(&kept).len(), 0);
}

#[test]
fn who_has_a_new_certificate_for_the_device_is_told_nothing() {
    let (_guard, site) = site();
    let kept = notify(&site, KEEP);
    // Until there is `user renew`, what it records.
    let sql = rusqlite::Connection::open(site.join("state/ledger.sqlite")).unwrap();
    let replaced = "UPDATE certificate SET superseded_by = '41414141414141414141414141414141', retires_at = not_after
                    WHERE kind = 'client'";
    assert_eq!(sql.execute(replaced, []).unwrap(), 1);
    drop(sql);
    assert_eq!(tick(335, &site).exit_code, 0);
    assert_eq!(mails(&kept).len(), 0);
}
