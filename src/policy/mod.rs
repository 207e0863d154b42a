//! What a domain asks of others, beyond single records: how far each policy is, and the files that web servers serve.

pub mod bimi;
pub mod evidence;
pub mod mta_sts;
pub mod rollout;
pub mod svg;
pub mod web;
pub mod words;
