//! `reelyard tenants`: whose uploads and videos there are, and how much each may have.

use super::{
    catalogue::{self, Place},
    output::{one_line, print},
};
use clap::Subcommand;
use reelyard_catalog::{Catalog, TenantLimits};
use reelyard_model::TenantId;
use std::{fmt::Display, fmt::Write as _, process::ExitCode, str::FromStr};
use uuid::Uuid;

const MAX_NAME_LETTERS: usize = 100;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    place: Place,
}

#[derive(Subcommand)]
enum Action {
    /// Add a tenant and print its id
    Add {
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// List the tenants, what they store and what they may
    List,
    /// Change what a tenant may; what is not named stays as it is
    SetQuota {
        /// A tenant's id or name
        #[arg(value_name = "TENANT")]
        tenant: String,
        #[command(flatten)]
        quota: Quota,
    },
    /// Change how much of the farm a tenant gets beside others; what is not named stays as it is
    Share {
        /// A tenant's id or name
        #[arg(value_name = "TENANT")]
        tenant: String,
        #[command(flatten)]
        share: ShareArgs,
    },
}

#[derive(clap::Args)]
struct ShareArgs {
    /// Twice the weight, twice the slots while both have work waiting; `none`: 1
    #[arg(long, value_name = "N", required_unless_present = "running")]
    weight: Option<Limit<u32>>,
    /// Most jobs of all kinds that it has at work at a time; `none`: as many as there are slots
    #[arg(long, value_name = "N")]
    running: Option<Limit<u32>>,
    /// Why, in your words; kept in the audit log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(clap::Args)]
struct Quota {
    /// Bytes of sources, open uploads among them; `none`: no limit
    #[arg(long, value_name = "BYTES")]
    storage_bytes: Option<Limit<u64>>,
    /// Longest upload; `none`: the server's limit
    #[arg(long, value_name = "BYTES")]
    max_upload_bytes: Option<Limit<u64>>,
    /// Uploads that are begun and not ended; `none`: no limit
    #[arg(long, value_name = "N")]
    open_uploads: Option<Limit<u32>>,
    /// Bodies received at a time; `none`: the server's limit
    #[arg(long, value_name = "N")]
    concurrent_transfers: Option<Limit<u32>>,
    /// Requests a second; `none`: the server's limit
    #[arg(long, value_name = "N")]
    requests_per_second: Option<Limit<u32>>,
}

/// A number above zero, or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit<T>(Option<T>);

impl<T: FromStr + Default + PartialEq> FromStr for Limit<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        let number: T = text.parse().map_err(|_| "give a whole number, or `none`".to_owned())?;
        if number == T::default() {
            return Err("0 would shut the tenant out; revoke its keys instead".to_owned());
        }
        Ok(Self(Some(number)))
    }
}

impl Quota {
    fn over(&self, old: TenantLimits) -> TenantLimits {
        fn pick<T: Copy>(new: Option<Limit<T>>, old: Option<T>) -> Option<T> {
            new.map_or(old, |Limit(limit)| limit)
        }
        TenantLimits {
            storage_bytes: pick(self.storage_bytes, old.storage_bytes),
            max_upload_bytes: pick(self.max_upload_bytes, old.max_upload_bytes),
            open_uploads: pick(self.open_uploads, old.open_uploads),
            concurrent_transfers: pick(self.concurrent_transfers, old.concurrent_transfers),
            requests_per_second: pick(self.requests_per_second, old.requests_per_second),
        }
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    catalogue::with(&args.place, async |catalog| match args.action {
        Action::Add { name } => add(&catalog, &name).await,
        Action::List => list(&catalog).await,
        Action::SetQuota { tenant, quota } => set_quota(&catalog, &tenant, &quota).await,
        Action::Share { tenant, share } => set_share(&catalog, &tenant, share).await,
    })
}

async fn add(catalog: &Catalog, name: &str) -> anyhow::Result<ExitCode> {
    let name = name.trim();
    anyhow::ensure!(
        !name.is_empty() && name.chars().count() <= MAX_NAME_LETTERS && !name.chars().any(char::is_control),
        "give a name of 1 to {MAX_NAME_LETTERS} letters"
    );
    anyhow::ensure!(
        catalog.tenants().await?.iter().all(|one| one.name != name && one.id.to_string() != name),
        "there is a tenant {name:?} already"
    );
    let id = TenantId::from_uuid(Uuid::now_v7());
    catalog.add_tenant(id, name, catalogue::now_ms()).await?;
    print(&format!("{id}\n"))
}

async fn list(catalog: &Catalog) -> anyhow::Result<ExitCode> {
    let mut text = String::new();
    for tenant in catalog.tenants().await? {
        let usage = catalog.usage(tenant.id).await?;
        let limits = tenant.limits;
        writeln!(text, "{}  {}", tenant.id, one_line(&tenant.name))?;
        writeln!(
            text,
            "  stores {} bytes, {} more in {} open uploads; may store {}",
            usage.kept_bytes,
            usage.reserved_bytes,
            usage.open_uploads,
            shown(limits.storage_bytes)
        )?;
        writeln!(
            text,
            "  longest upload {}, open uploads {}, bodies at a time {}, requests a second {}",
            shown(limits.max_upload_bytes),
            shown(limits.open_uploads),
            shown(limits.concurrent_transfers),
            shown(limits.requests_per_second)
        )?;
        let share = catalog.tenant_share(tenant.id).await?;
        writeln!(
            text,
            "  share weight {}, jobs at work at a time {} (now {})",
            share.weight.unwrap_or(1),
            share
                .running_tasks
                .map_or_else(|| "as many as there are slots".to_owned(), |most| most.to_string()),
            catalog.tenant_running(tenant.id).await?
        )?;
    }
    print(&text)
}

fn shown(limit: Option<impl Display>) -> String {
    limit.map_or_else(|| "as the server does".to_owned(), |limit| limit.to_string())
}

async fn set_quota(catalog: &Catalog, tenant: &str, quota: &Quota) -> anyhow::Result<ExitCode> {
    let tenant = catalogue::tenant(catalog, tenant).await?;
    let limits = quota.over(tenant.limits);
    catalog.set_tenant_limits(tenant.id, limits, &catalogue::actor(None), catalogue::now_ms()).await?;
    list(catalog).await
}

/// Effective from the next claim on, also while servers run.
async fn set_share(catalog: &Catalog, tenant: &str, wanted: ShareArgs) -> anyhow::Result<ExitCode> {
    let tenant = catalogue::tenant(catalog, tenant).await?;
    let mut share = catalog.tenant_share(tenant.id).await?;
    if let Some(Limit(weight)) = wanted.weight {
        share.weight = weight;
    }
    if let Some(Limit(running)) = wanted.running {
        share.running_tasks = running;
    }
    let actor = catalogue::actor(wanted.reason);
    catalog.set_tenant_share(tenant.id, share, &actor, catalogue::now_ms()).await?;
    list(catalog).await
}

#[cfg(test)]
mod tests {
    use super::{Limit, Quota};
    use reelyard_catalog::TenantLimits;

    #[test]
    fn a_limit_is_a_number_above_zero_or_none() {
        assert_eq!("5".parse(), Ok(Limit(Some(5_u64))));
        assert_eq!("none".parse::<Limit<u32>>(), Ok(Limit(None)));
        for wrong in ["0", "-1", "5 GB", ""] {
            assert!(wrong.parse::<Limit<u32>>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_named_stays() {
        let old = TenantLimits { storage_bytes: Some(1), open_uploads: Some(2), ..TenantLimits::default() };
        let quota = Quota {
            storage_bytes: Some(Limit(None)),
            max_upload_bytes: Some(Limit(Some(7))),
            open_uploads: None,
            concurrent_transfers: None,
            requests_per_second: None,
        };
        let new = TenantLimits { storage_bytes: None, max_upload_bytes: Some(7), ..old };
        assert_eq!(quota.over(old), new);
    }
}
