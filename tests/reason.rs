//! Why a file differs from what was blessed: inventories made by hand, in place of key rotation and renewal.

#![expect(clippy::unwrap_used, reason = "a test that cannot prepare its case fails")]

use std::sync::{Arc, LazyLock};

use postseal::inventory::{DkimAlgorithm, DkimKey, Inventory};
use postseal::plan::reason::{self, NOT_THE_LEDGER};
use postseal::plan::{Difference, Files, difference, public_files};
use postseal::render::render;
use postseal::site::{self, Site, SpfPolicy};
use postseal::store::SiteDir;
use proptest::prelude::*;
use time::macros::datetime;

const ZONE: &str = "dns/example.com.zone";
const MANIFEST: &str = "mail.example.com/MANIFEST";
const ROTATION: &str = "DKIM key of example.com (rsa): selector 202611r → 202612r, active since 2026-12-01";

/// A golden case with two domains, of which one forwards mail: as its settings and its lock tell of it.
static CASE: LazyLock<(Site, Inventory)> = LazyLock::new(|| {
    let directory = SiteDir::new("golden/two-domains");
    let settings: Vec<_> = directory.settings().unwrap().into_iter().map(Arc::new).collect();
    (site::load(&settings).unwrap().0, directory.locked_inventory().unwrap().unwrap())
});

/// What exists in another golden case, for a certificate and a CA that can be read.
fn other() -> Inventory {
    SiteDir::new("golden/debian-minimal").locked_inventory().unwrap().unwrap()
}

fn files(site: &Site, inventory: &Inventory) -> Files {
    public_files(&render(site, inventory, &[]).unwrap())
}

/// What `diff` says about golden files, with settings and an inventory.
fn explained(golden: &Files, site: &Site, inventory: &Inventory) -> Difference {
    let rendered = files(site, inventory);
    let mut found = difference(golden, &rendered);
    reason::explain(&mut found, golden, &rendered, inventory, |blessed| {
        render(site, blessed, &[]).ok().map(|tree| public_files(&tree))
    });
    found
}

/// Each change's path, without the directories that all of a host's files share, with its reasons.
fn reasons(difference: &Difference) -> Vec<(String, Vec<&str>)> {
    let short = |path: &str| path.rsplit("/root/etc/").next().unwrap().to_owned();
    let changes = difference.changes.iter();
    changes.map(|change| (short(change.path.as_str()), change.reasons.iter().map(String::as_str).collect())).collect()
}

fn rsa_key(inventory: &mut Inventory) -> &mut DkimKey {
    let mut keys = inventory.dkim_keys.iter_mut();
    keys.find(|key| key.domain.as_str() == "example.com" && key.algorithm == DkimAlgorithm::Rsa).unwrap()
}

fn rotated(inventory: &Inventory) -> Inventory {
    let mut inventory = inventory.clone();
    let key = rsa_key(&mut inventory);
    key.selector = "202612r".parse().unwrap();
    key.since = datetime!(2026-12-01 12:00 UTC);
    key.public = format!("{}AQAB", "B".repeat(388));
    inventory
}

fn expect(difference: &Difference, expected: &[(&str, &[&str])]) {
    let expected: Vec<_> = expected.iter().map(|(path, reasons)| ((*path).to_owned(), reasons.to_vec())).collect();
    assert_eq!(reasons(difference), expected);
}

#[test]
fn a_new_selector_is_the_reason_wherever_it_stands_and_nowhere_else() {
    let (site, inventory) = &*CASE;
    let found = explained(&files(site, inventory), site, &rotated(inventory));
    let changed = [ZONE, MANIFEST, "rspamd/local.d/arc.conf", "rspamd/local.d/dkim_signing.conf"];
    expect(&found, &changed.map(|path| (path, [ROTATION].as_slice())));
}

#[test]
fn a_key_that_comes_before_the_old_one_goes_is_told_as_new() {
    let (site, inventory) = &*CASE;
    let mut both = inventory.clone();
    both.dkim_keys.push(rsa_key(&mut rotated(inventory)).clone());
    both.dkim_keys.sort_by(|a, b| (&a.domain, a.algorithm, &a.selector).cmp(&(&b.domain, b.algorithm, &b.selector)));
    let come = explained(&files(site, inventory), site, &both);
    let told = "new DKIM key of example.com (rsa): selector 202612r, active since 2026-12-01";
    assert_eq!(reasons(&come)[0], (ZONE.to_owned(), vec![told]));
    let gone = explained(&files(site, &both), site, inventory);
    assert_eq!(reasons(&gone)[0], (ZONE.to_owned(), vec!["DKIM key of example.com (rsa) is gone: selector 202612r"]));
}

#[test]
fn a_renewed_certificate_is_the_reason_in_every_file_that_names_it() {
    let (site, inventory) = &*CASE;
    let mut renewed = inventory.clone();
    renewed.server_certificates = other().server_certificates;
    let (old, new) = (inventory.server_certificates[0].serial, renewed.server_certificates[0].serial);
    let reason = format!("certificate of mail.example.com: serial {old} → {new}, valid 2026-11-24 to 2027-06-12");
    let reason = [reason.as_str()];
    let mut pems = [old, new].map(|serial| format!("mail/postseal/tls/mail.example.com-{serial}.pem"));
    pems.sort();
    let found = explained(&files(site, inventory), site, &renewed);
    expect(&found, &[(MANIFEST, &reason), (&pems[0], &reason), (&pems[1], &reason), ("smtpd.conf", &reason)]);
}

#[test]
fn of_two_changes_of_the_ledger_each_file_tells_its_own() {
    let (site, inventory) = &*CASE;
    let both = Inventory { server_certificates: other().server_certificates, ..rotated(inventory) };
    let found = explained(&files(site, inventory), site, &both);
    let certificate = |reason: &str| reason.starts_with("certificate of mail.example.com: serial ");
    for (path, reasons) in reasons(&found) {
        match path.as_str() {
            MANIFEST => assert!(certificate(reasons[0]) && reasons[1..] == [ROTATION], "{reasons:?}"),
            path if path.contains("/tls/") || path == "smtpd.conf" => {
                assert!(certificate(reasons[0]) && reasons.len() == 1, "{path} {reasons:?}");
            }
            _ => assert_eq!(reasons, [ROTATION], "{path}"),
        }
    }
}

#[test]
fn a_new_site_ca_is_a_reason_of_the_chains_that_end_in_it() {
    let (site, inventory) = &*CASE;
    let found =
        explained(&files(site, inventory), site, &Inventory { dkim_keys: inventory.dkim_keys.clone(), ..other() });
    let ca = "site CA: made anew, valid 2026-11-24 to 2036-11-23";
    let with: Vec<_> = found.changes.iter().filter(|change| change.reasons.iter().any(|one| one == ca)).collect();
    assert_eq!(with.len(), 2);
    assert!(with.iter().all(|change| change.path.extension() == Some("pem") && change.reasons.len() == 2));
}

#[test]
fn what_the_ledger_has_no_part_in_is_said_to_come_from_elsewhere() {
    let (site, inventory) = &*CASE;
    let mut stricter = site.clone();
    stricter.domains[0].spf = SpfPolicy::Fail;
    expect(&explained(&files(site, inventory), &stricter, inventory), &[(ZONE, &[NOT_THE_LEDGER])]);
    // Beside a rotation too: only the zone has both reasons.
    let found = explained(&files(site, inventory), &stricter, &rotated(inventory));
    assert_eq!(reasons(&found)[0], (ZONE.to_owned(), vec![ROTATION, NOT_THE_LEDGER]));
    assert_eq!(reasons(&found)[1], (MANIFEST.to_owned(), vec![ROTATION]));
}

#[test]
fn a_file_that_was_taken_out_of_golden_makes_no_key_or_certificate_new() {
    let (site, inventory) = &*CASE;
    let mut golden = files(site, inventory);
    golden.retain(|path, _| path != ZONE && path.extension() != Some("pem"));
    let found = explained(&golden, site, inventory);
    assert_eq!(found.changes.len(), 2);
    assert!(found.changes.iter().all(|change| change.reasons == [NOT_THE_LEDGER]), "{:?}", reasons(&found));
}

#[test]
fn another_key_under_the_same_selector_is_no_rotation() {
    let (site, inventory) = &*CASE;
    let mut golden = files(site, inventory);
    let public = rsa_key(&mut inventory.clone()).public.clone();
    let zone = golden.get_mut(camino::Utf8Path::new(ZONE)).unwrap();
    *zone = zone.replacen(&public[..40], &"C".repeat(40), 1);
    let told =
        "DKIM key of example.com (rsa): golden/ has another one under the selector 202611r, active since 2026-11-24";
    expect(&explained(&golden, site, inventory), &[(ZONE, &[told])]);
}

#[test]
fn a_domain_that_left_the_settings_is_the_settings_doing() {
    let (site, inventory) = &*CASE;
    let mut smaller = site.clone();
    smaller.domains.retain(|domain| domain.name.as_str() == "example.com");
    // With its keys still in the ledger, and with its keys gone.
    let mut without = inventory.clone();
    without.dkim_keys.retain(|key| key.domain.as_str() == "example.com");
    for inventory in [inventory, &without] {
        let found = explained(&files(site, &CASE.1), &smaller, inventory);
        assert!(found.changes.iter().any(|change| change.path == "dns/example.org.zone"));
        assert!(found.changes.iter().all(|change| change.reasons == [NOT_THE_LEDGER]), "{:?}", reasons(&found));
    }
}

proptest! {
    #[test]
    fn hostile_golden_files_are_explained_without_a_panic(
        text in "(.|\n){0,200}",
        name in "[ -~]{1,40}",
        lines in prop::collection::vec("[a-z0-9.]{0,9}\\._domainkey\\.[a-z.]{0,9}\\. 3600 IN TXT [\"a-z;= ]{0,30}", 0..5),
    ) {
        let (site, inventory) = &*CASE;
        let mut golden = files(site, inventory);
        golden.insert(ZONE.into(), lines.join("\n"));
        golden.insert(MANIFEST.into(), text.clone());
        golden.insert(format!("dns/{name}").into(), text.clone());
        golden.insert(format!("mail.example.com/root/tls/mail.example.com-{}.pem", "4".repeat(32)).into(), text);
        let found = explained(&golden, site, inventory);
        prop_assert!(found.changes.iter().all(|change| change.reasons.iter().all(|reason| !reason.contains('\n'))));
    }
}
