//! postseal makes a mail server that admits only holders of a client certificate.
//!
//! From one settings file it makes keys and certificates, and renders OpenSMTPD's and Rspamd's configuration and the DNS
//! records. Four nouns carry the program: a [`site::Site`] is what is wanted, an [`inventory::Inventory`] what exists, a
//! [`tree::Tree`] what is rendered from both, and a plan the difference of two trees.
//!
//! The modules below stand in layer order: each uses only those before it, and up to `plan` none reads a clock, a file or
//! the network, draws randomness, runs a program or prints (`tests/layers.rs` keeps it so).
//!
//! * `pki` reads no clock and makes no key; what it signs is given to it whole.
//! * A private key never enters a template, a diagnostic or `Debug`.
//! * Only `render` knows Tera; only `store` knows SQL; only `cli` prints.

pub mod names;
pub mod token_uri;
pub mod secret;
pub mod password;
pub mod diag;
pub mod accounts_csv;
pub mod platform;
pub mod keys;
pub mod stages;
pub mod inventory;
pub mod site;
pub mod tree;
pub mod dns;
pub mod dkim;
pub mod pki;
pub mod policy;
pub mod reports;
pub mod records;
pub mod render;
pub mod plan;
pub mod install;
pub mod status;
pub mod notify;
pub mod env;
pub mod token;
pub mod store;

pub mod host;
pub mod cli;
