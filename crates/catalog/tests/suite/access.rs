//! Who may do how much: keys with scopes, and quotas that are reserved and released with the rows that they count.

use crate::support::{Bench, finish, new_upload, somebody};
use reelyard_catalog::{
    AuditFilter, Catalog, CatalogError, DEFERRED_STEP_BYTES, NewApiKey, NewUpload, OverQuota, Scope, Scopes,
    TenantLimits, UploadGrant,
};
use reelyard_model::{TenantId, UploadId, UploadKind};
use serde_json::json;
use uuid::Uuid;

const NO_LIMITS: TenantLimits = TenantLimits {
    storage_bytes: None,
    max_upload_bytes: None,
    open_uploads: None,
    concurrent_transfers: None,
    requests_per_second: None,
};

fn upload_of(byte_len: Option<u64>) -> NewUpload {
    NewUpload { byte_len, ..new_upload(UploadId::from_uuid(Uuid::now_v7()), 1) }
}

async fn begin(catalog: &Catalog, byte_len: Option<u64>) -> Result<UploadId, OverQuota> {
    quota(catalog.create_upload(upload_of(byte_len)).await.map(|row| row.id))
}

fn quota<T>(result: Result<T, CatalogError>) -> Result<T, OverQuota> {
    match result {
        Ok(value) => Ok(value),
        Err(CatalogError::OverQuota(over)) => Err(over),
        Err(other) => panic!("{other}"),
    }
}

async fn with_limits(limits: TenantLimits) -> Bench {
    let bench = Bench::new().await;
    bench.catalog.set_tenant_limits(TenantId::DEFAULT, limits, &somebody(), 1).await.unwrap();
    bench
}

#[tokio::test]
async fn a_key_has_its_scopes_until_it_is_revoked() {
    let bench = Bench::new().await;
    let scopes = Scopes::of(&[Scope::UploadsWrite]);
    let id = Uuid::now_v7();
    let new =
        NewApiKey { id, tenant: TenantId::DEFAULT, label: "phone", key_sha256: "ab", scopes, now_ms: 1 };
    bench.catalog.add_api_key(new, &somebody()).await.unwrap();
    let live = bench.catalog.live_api_key("ab").await.unwrap().unwrap();
    assert_eq!((live.key.scopes, live.limits), (scopes, NO_LIMITS));
    assert!(bench.catalog.api_key_lives(&live.key.id).await.unwrap());
    assert!(bench.catalog.revoke_api_key(id, &somebody(), 2).await.unwrap());
    assert!(!bench.catalog.revoke_api_key(id, &somebody(), 3).await.unwrap());
    assert!(bench.catalog.live_api_key("ab").await.unwrap().is_none());
    assert!(!bench.catalog.api_key_lives(&live.key.id).await.unwrap());
    let filter = AuditFilter { subject: Some(id.to_string()), limit: 9, ..AuditFilter::default() };
    let lines = bench.catalog.audit_log(&filter).await.unwrap();
    let told: Vec<_> = lines.iter().map(|line| (line.action.as_str(), line.at_ms)).collect();
    assert_eq!(told, [("key.revoked", 2), ("key.added", 1)], "the second revocation changed nothing");
    assert_eq!(lines[1].data, json!({ "label": "phone", "scopes": "uploads:write" }));
}

#[tokio::test]
async fn a_new_admin_key_ends_the_old_one_and_no_other() {
    let bench = Bench::new().await;
    let new = NewApiKey {
        id: Uuid::now_v7(),
        tenant: TenantId::DEFAULT,
        label: "robot",
        key_sha256: "cd",
        scopes: Scopes::of(&[Scope::Admin]),
        now_ms: 1,
    };
    bench.catalog.add_api_key(new, &somebody()).await.unwrap();
    for digest in ["old", "new"] {
        bench.catalog.install_admin_key(Uuid::now_v7(), TenantId::DEFAULT, digest, 2).await.unwrap();
    }
    assert!(bench.catalog.live_api_key("old").await.unwrap().is_none());
    assert!(bench.catalog.live_api_key("new").await.unwrap().unwrap().key.scopes.contain(Scope::AssetsWrite));
    assert!(bench.catalog.live_api_key("cd").await.unwrap().is_some());
}

#[tokio::test]
async fn limits_come_with_the_key_and_with_the_tenant() {
    let limits =
        TenantLimits { storage_bytes: Some(5), requests_per_second: Some(7), ..TenantLimits::default() };
    let bench = with_limits(limits).await;
    bench.catalog.install_admin_key(Uuid::now_v7(), TenantId::DEFAULT, "k", 2).await.unwrap();
    assert_eq!(bench.catalog.live_api_key("k").await.unwrap().unwrap().limits, limits);
    assert_eq!(bench.catalog.tenant_limits(TenantId::DEFAULT).await.unwrap(), Some(limits));
    assert_eq!(bench.catalog.tenants().await.unwrap()[0].limits, limits);
    let nobody = TenantId::from_uuid(Uuid::from_u128(99));
    assert_eq!(bench.catalog.tenant_limits(nobody).await.unwrap(), None);
    let refused = bench.catalog.set_tenant_limits(nobody, limits, &somebody(), 2).await;
    assert!(matches!(refused, Err(CatalogError::NotFound { .. })));
    let filter = AuditFilter { limit: 9, ..AuditFilter::default() };
    let lines = bench.catalog.audit_log(&filter).await.unwrap();
    assert_eq!(lines.len(), 1, "what was refused has no line: {lines:?}");
    assert_eq!((lines[0].action.as_str(), &lines[0].data["storage_bytes"]), ("tenant.limits_set", &json!(5)));
}

#[tokio::test]
async fn bytes_are_reserved_by_the_beginning_and_released_by_every_ending() {
    let bench = with_limits(TenantLimits { storage_bytes: Some(2_500), ..NO_LIMITS }).await;
    let catalog = &bench.catalog;
    let first = begin(catalog, Some(1_000)).await.unwrap();
    let second = begin(catalog, Some(1_000)).await.unwrap();
    let refused = begin(catalog, Some(501)).await.unwrap_err();
    assert_eq!(refused, OverQuota::Storage { allowed: 2_500, used: 2_000, wanted: 501 });
    begin(catalog, Some(500)).await.unwrap();

    catalog.terminate_upload(first, 2).await.unwrap();
    let third = begin(catalog, Some(1_000)).await.unwrap();
    let expires_ms = catalog.upload(third).await.unwrap().unwrap().expires_ms;
    catalog.expire_upload(third, expires_ms).await.unwrap();
    let fourth = begin(catalog, Some(1_000)).await.unwrap();
    catalog.reject_upload(fourth, 3).await.unwrap();

    // A finished upload counts as its asset, and no longer than that lives.
    catalog.upload_finishing_or_finished(second, 1_000, 4).await.unwrap();
    let asset = catalog.finish_upload(finish(second, 4)).await.unwrap().asset;
    let usage = catalog.usage(TenantId::DEFAULT).await.unwrap();
    assert_eq!((usage.kept_bytes, usage.reserved_bytes, usage.open_uploads), (1_000, 500, 1));
    assert!(begin(catalog, Some(1_001)).await.is_err());
    catalog.delete_asset(asset, &somebody(), 5).await.unwrap();
    begin(catalog, Some(2_000)).await.unwrap();
}

#[tokio::test]
async fn two_that_come_at_once_never_share_the_last_bytes() {
    let bench = with_limits(TenantLimits { storage_bytes: Some(1_000), ..NO_LIMITS }).await;
    let others = [bench.second_handle().await, bench.second_handle().await];
    let mut tasks = Vec::new();
    for number in 0..20 {
        let catalog = others[number % 2].clone();
        tasks.push(tokio::spawn(async move { begin(&catalog, Some(400)).await.is_ok() }));
    }
    let mut begun = 0;
    for task in tasks {
        begun += u32::from(task.await.unwrap());
    }
    assert_eq!(begun, 2);
}

#[tokio::test]
async fn an_upload_of_unknown_length_counts_as_far_as_it_was_let_in() {
    let bench = with_limits(TenantLimits { storage_bytes: Some(1_000), ..NO_LIMITS }).await;
    let catalog = &bench.catalog;
    let unknown = begin(catalog, None).await.unwrap();
    catalog.reserve_up_to(unknown, 600).await.unwrap();
    catalog.reserve_up_to(unknown, 500).await.unwrap();
    assert_eq!(catalog.usage(TenantId::DEFAULT).await.unwrap().reserved_bytes, 600);
    assert!(begin(catalog, Some(401)).await.is_err());
    let other = begin(catalog, Some(400)).await.unwrap();
    let refused = quota(catalog.reserve_up_to(unknown, 601).await).unwrap_err();
    assert_eq!(refused, OverQuota::Storage { allowed: 1_000, used: 400, wanted: 601 });

    // The length is told: too long is refused and nothing is stored of it; what fits takes its place.
    assert!(quota(catalog.set_upload_length(unknown, 700, 2).await).is_err());
    assert_eq!(catalog.upload(unknown).await.unwrap().unwrap().byte_len, None);
    catalog.terminate_upload(other, 3).await.unwrap();
    assert!(catalog.set_upload_length(unknown, 700, 4).await.unwrap());
    assert_eq!(catalog.usage(TenantId::DEFAULT).await.unwrap().reserved_bytes, 700);
    catalog.reserve_up_to(unknown, DEFERRED_STEP_BYTES).await.unwrap();
}

#[tokio::test]
async fn a_final_upload_counts_with_its_pieces() {
    let bench = with_limits(TenantLimits { storage_bytes: Some(1_000), ..NO_LIMITS }).await;
    let piece = NewUpload { kind: UploadKind::Partial, ..upload_of(Some(500)) };
    let other = NewUpload { id: UploadId::from_uuid(Uuid::now_v7()), ..piece.clone() };
    let whole =
        NewUpload { kind: UploadKind::Final, partials: vec![piece.id, other.id], ..upload_of(Some(1_000)) };
    for new in [piece, other, whole] {
        bench.catalog.create_upload(new).await.unwrap();
    }
    assert_eq!(bench.catalog.usage(TenantId::DEFAULT).await.unwrap().bytes(), 1_000);
    assert!(begin(&bench.catalog, Some(1)).await.is_err());
}

#[tokio::test]
async fn the_longest_upload_is_held_to_from_beginning_to_end() {
    let bench = with_limits(TenantLimits { max_upload_bytes: Some(2_000), ..NO_LIMITS }).await;
    let catalog = &bench.catalog;
    assert_eq!(
        begin(catalog, Some(2_001)).await.unwrap_err(),
        OverQuota::UploadLength { allowed: 2_000, wanted: 2_001 }
    );
    let grant = UploadGrant { max_byte_len: Some(900), ..UploadGrant::default() };
    let refused = quota(catalog.create_upload_within(upload_of(Some(901)), grant.clone()).await);
    assert_eq!(refused.unwrap_err(), OverQuota::UploadLength { allowed: 900, wanted: 901 });
    let row = catalog.create_upload_within(upload_of(None), grant).await.unwrap();
    assert_eq!(row.max_byte_len, Some(900));
    assert!(quota(catalog.reserve_up_to(row.id, 901).await).is_err());
    assert!(quota(catalog.set_upload_length(row.id, 901, 2).await).is_err());
    assert!(quota(catalog.upload_finishing_or_finished(row.id, 901, 2).await).is_err());
    catalog.upload_finishing_or_finished(row.id, 900, 2).await.unwrap();
}

#[tokio::test]
async fn open_uploads_are_counted_until_they_end() {
    let bench = with_limits(TenantLimits { open_uploads: Some(2), ..NO_LIMITS }).await;
    let first = begin(&bench.catalog, Some(1)).await.unwrap();
    begin(&bench.catalog, None).await.unwrap();
    let refused = begin(&bench.catalog, Some(1)).await.unwrap_err();
    assert_eq!(refused, OverQuota::OpenUploads { allowed: 2, open: 2 });
    bench.catalog.terminate_upload(first, 2).await.unwrap();
    begin(&bench.catalog, Some(1)).await.unwrap();
}

#[tokio::test]
async fn a_token_begins_so_many_uploads_and_they_are_known_as_its_own() {
    let bench = Bench::new().await;
    let grant = UploadGrant { token: Some(("a-token".into(), 2)), ..UploadGrant::default() };
    let first = bench.catalog.create_upload_within(upload_of(Some(1)), grant.clone()).await.unwrap();
    assert_eq!(first.token.as_deref(), Some("a-token"));
    bench.catalog.terminate_upload(first.id, 2).await.unwrap();
    bench.catalog.create_upload_within(upload_of(Some(1)), grant.clone()).await.unwrap();
    let refused = quota(bench.catalog.create_upload_within(upload_of(Some(1)), grant).await);
    assert_eq!(refused.unwrap_err(), OverQuota::TokenUploads { allowed: 2 }, "given up ones count too");
    assert_eq!(begin(&bench.catalog, Some(1)).await.map(|_| ()), Ok(()));
}

#[tokio::test]
async fn a_piece_that_a_final_upload_names_again_counts_again() {
    let bench = with_limits(TenantLimits { storage_bytes: Some(1_000), ..NO_LIMITS }).await;
    let piece = NewUpload { kind: UploadKind::Partial, ..upload_of(Some(400)) };
    let piece = bench.catalog.create_upload(piece).await.unwrap().id;
    let joined = |times: usize, byte_len| NewUpload {
        kind: UploadKind::Final,
        partials: vec![piece; times],
        ..upload_of(byte_len)
    };
    let refused = quota(bench.catalog.create_upload(joined(3, Some(1_200))).await);
    assert_eq!(refused.unwrap_err(), OverQuota::Storage { allowed: 1_000, used: 400, wanted: 800 });
    let twice = bench.catalog.create_upload(joined(2, Some(800))).await.unwrap();
    assert_eq!(bench.catalog.usage(TenantId::DEFAULT).await.unwrap().reserved_bytes, 800);
    bench.catalog.terminate_upload(twice.id, 2).await.unwrap();

    // Its length may be told later.
    let later = bench.catalog.create_upload(joined(3, None)).await.unwrap();
    let refused = quota(bench.catalog.set_upload_length(later.id, 1_200, 3).await);
    assert_eq!(refused.unwrap_err(), OverQuota::Storage { allowed: 1_000, used: 400, wanted: 800 });
    let later = bench.catalog.create_upload(joined(2, None)).await.unwrap();
    assert!(bench.catalog.set_upload_length(later.id, 800, 3).await.unwrap());
    assert_eq!(bench.catalog.usage(TenantId::DEFAULT).await.unwrap().reserved_bytes, 800);
}
