//! `reelyard keys`: who may speak to the server, and what they may do.
//!
//! Works on the catalogue in the data directory, so it needs no key itself, only the right to read and write there; a
//! server may run meanwhile and obeys at once. A key is printed where it is made, once, and stored nowhere.

use super::{
    catalogue::{self, Place},
    output::{one_line, print},
};
use anyhow::Context as _;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::Subcommand;
use reelyard_catalog::{Catalog, NewApiKey, Scopes};
use sha2::{Digest, Sha256};
use std::{fmt::Write as _, process::ExitCode};
use uuid::Uuid;

/// Random bytes in a key.
pub(super) const KEY_BYTES: usize = 32;
/// Marks our keys for people and for secret scanners.
pub(super) const KEY_PREFIX: &str = "reelyard_";
/// The key of the file `admin.key` has this label; a new one ends all others that have it.
const ADMIN_LABEL: &str = "admin";
const MAX_LABEL_LETTERS: usize = 100;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    place: Place,
}

#[derive(Subcommand)]
enum Action {
    /// Make a key and print it, this once
    Add {
        /// What it is for, to tell it from others
        #[arg(long, value_name = "TEXT")]
        label: String,
        /// What it may do, separated by commas: admin (everything), uploads:write, uploads:sign, assets:read,
        /// assets:write, playback:sign, metrics:read; and `worker` for `reelyard worker`, which admin does not hold
        #[arg(long, value_name = "SCOPES")]
        scopes: Scopes,
        /// Whose key it is: a tenant's id or name
        #[arg(long, value_name = "TENANT", default_value = "default")]
        tenant: String,
    },
    /// List the keys: what they may do, not what they are
    List,
    /// End a key, at once and for good
    Revoke {
        #[arg(value_name = "ID")]
        id: Uuid,
    },
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    catalogue::with(&args.place, async |catalog| match args.action {
        Action::Add { label, scopes, tenant } => add(&catalog, &label, scopes, &tenant).await,
        Action::List => list(&catalog).await,
        Action::Revoke { id } => revoke(&catalog, id).await,
    })
}

async fn add(catalog: &Catalog, label: &str, scopes: Scopes, tenant: &str) -> anyhow::Result<ExitCode> {
    let label = label.trim();
    anyhow::ensure!(
        !label.is_empty()
            && label.chars().count() <= MAX_LABEL_LETTERS
            && !label.chars().any(char::is_control),
        "give a label of 1 to {MAX_LABEL_LETTERS} letters"
    );
    anyhow::ensure!(
        label != ADMIN_LABEL,
        "the label `{ADMIN_LABEL}` is the one of the file admin.key; choose another"
    );
    anyhow::ensure!(!scopes.is_empty(), "a key without a scope may do nothing; give some with --scopes");
    let tenant = catalogue::tenant(catalog, tenant).await?;
    let mut bytes = [0; KEY_BYTES];
    getrandom::fill(&mut bytes).context("the operating system gives no random numbers")?;
    let key = format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
    let id = Uuid::now_v7();
    let new = NewApiKey {
        id,
        tenant: tenant.id,
        label,
        key_sha256: &hex::encode(Sha256::digest(key.as_bytes())),
        scopes,
        now_ms: catalogue::now_ms(),
    };
    catalog.add_api_key(new, &catalogue::actor(None)).await?;
    // The key alone on standard output, so that a script can take it.
    eprintln!(
        "Key {id} of tenant {} may: {scopes}. This is the key; it is not shown again.",
        one_line(&tenant.name)
    );
    print(&format!("{key}\n"))
}

async fn list(catalog: &Catalog) -> anyhow::Result<ExitCode> {
    let tenants = catalog.tenants().await?;
    let mut text = format!("{:36}  {:20}  {:16}  {:7}  SCOPES\n", "ID", "LABEL", "TENANT", "STATE");
    for key in catalog.api_keys(None).await? {
        let tenant = tenants.iter().find(|tenant| tenant.id == key.tenant);
        let tenant = tenant.map_or_else(|| key.tenant.to_string(), |tenant| one_line(&tenant.name));
        let state = if key.revoked_ms.is_some() { "revoked" } else { "live" };
        let label = one_line(&key.label);
        writeln!(text, "{:36}  {label:20}  {tenant:16}  {state:7}  {}", key.id, key.scopes)?;
    }
    print(&text)
}

async fn revoke(catalog: &Catalog, id: Uuid) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        catalog.revoke_api_key(id, &catalogue::actor(None), catalogue::now_ms()).await?,
        "there is no live key {id}; see `reelyard keys list`"
    );
    print(&format!("{id} is revoked.\n"))
}
