//! Questions and changes that have no story of their own in this suite: each of them once, because each is a text of
//! SQL that both databases have to understand alike.

use crate::support::{Bench, EVERY_KIND, finish, new_upload, somebody};
use reelyard_catalog::{
    AssetFilter, Condition, ContentQuery, NewUpload, PossessionRow, Proven, TaskFilter, UploadGrant,
    VainTries,
};
use reelyard_model::{Completion, TaskState, TenantId, UploadId, UploadKind, UploadState, work::TaskKind};
use reelyard_upload::ledger::{Extent, LedgerChange, LedgerState};
use uuid::Uuid;

fn upload_id() -> UploadId {
    UploadId::from_uuid(Uuid::now_v7())
}

#[tokio::test]
async fn final_uploads_are_found_by_their_list_and_by_their_pieces() {
    let bench = Bench::new().await;
    let catalog = &bench.catalog;
    let piece = NewUpload { kind: UploadKind::Partial, ..new_upload(upload_id(), 1) };
    catalog.create_upload(piece.clone()).await.unwrap();
    // An entry of an index holds no text of this length.
    let header = format!("final;{}", "/uploads/0192a-b ".repeat(2_000));
    let whole = NewUpload {
        kind: UploadKind::Final,
        partials: vec![piece.id],
        concat_header: Some(header.clone()),
        ..new_upload(upload_id(), 1)
    };
    catalog.create_upload(whole.clone()).await.unwrap();
    let like = catalog.final_like(TenantId::DEFAULT, &header, &whole.metadata, piece.id).await.unwrap();
    assert_eq!(like.map(|row| row.id), Some(whole.id));
    let other =
        catalog.final_like(TenantId::DEFAULT, "final;other", &whole.metadata, piece.id).await.unwrap();
    assert!(other.is_none());
    for with in [None, Some(piece.id)] {
        let open = catalog.unfinished_finals(with).await.unwrap();
        assert_eq!(open.iter().map(|row| row.id).collect::<Vec<_>>(), [whole.id], "{with:?}");
    }
    assert!(catalog.unfinished_finals(Some(whole.id)).await.unwrap().is_empty());
    assert!(!catalog.is_joined(TenantId::DEFAULT, piece.id).await.unwrap());
    catalog.upload_finishing_or_finished(whole.id, 1_000, 2).await.unwrap();
    catalog.finish_upload(finish(whole.id, 3)).await.unwrap();
    assert!(catalog.is_joined(TenantId::DEFAULT, piece.id).await.unwrap());
    assert!(catalog.unfinished_finals(None).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_question_is_answered_once_and_only_by_whoever_was_asked() {
    const LIMIT: VainTries = VainTries { most: 2, within_ms: 1_000 };
    let bench = Bench::new().await;
    let catalog = &bench.catalog;
    let asset = bench.asset(1).await;
    let kept = catalog.asset(asset).await.unwrap().unwrap();
    let question = |asked_by: Option<Uuid>, now_ms: i64| PossessionRow {
        id: upload_id(),
        tenant: TenantId::DEFAULT,
        byte_len: kept.byte_len,
        sha256: kept.sha256.clone(),
        file_name: None,
        metadata: String::new(),
        preset: kept.preset.clone(),
        nonce: vec![7; 32],
        created_ms: now_ms,
        expires_ms: now_ms + 100,
        proof: None,
        asked_by,
    };
    let (mine, nobodys) = (question(Some(Uuid::now_v7()), 10), question(None, 11));
    assert!(catalog.ask_possession(&mine, LIMIT).await.unwrap());
    assert!(catalog.ask_possession(&nobodys, LIMIT).await.unwrap());
    assert!(!catalog.ask_possession(&question(None, 12), LIMIT).await.unwrap(), "two were in vain so far");
    assert!(catalog.possession(mine.id, TenantId::DEFAULT, None).await.unwrap().is_none());
    assert!(catalog.possession(nobodys.id, TenantId::DEFAULT, None).await.unwrap().is_some());
    let found = catalog.possession(mine.id, TenantId::DEFAULT, mine.asked_by).await.unwrap().unwrap();
    assert_eq!((found.nonce, found.file_name, found.proof), (vec![7; 32], None, None));
    assert!(catalog.take_possession_answer(mine.id, 20).await.unwrap());
    assert!(!catalog.take_possession_answer(mine.id, 21).await.unwrap());
    let mut ending = finish(mine.id, 22);
    ending.sha256 = kept.sha256.clone();
    let proven = Proven {
        upload: NewUpload { expected_sha256: Some(kept.sha256.clone()), ..new_upload(mine.id, 22) },
        grant: UploadGrant::default(),
        finish: ending,
        proof: "cd".into(),
    };
    let finished = catalog.finish_proven(proven).await.unwrap().unwrap();
    assert_eq!(finished.content_of, Some(asset));
    assert!(catalog.ask_possession(&question(None, 30), LIMIT).await.unwrap(), "one was right");
    // The old ones are forgotten.
    assert!(catalog.ask_possession(&question(None, 5_000), LIMIT).await.unwrap());
    assert!(catalog.possession(nobodys.id, TenantId::DEFAULT, None).await.unwrap().is_none());
}

#[tokio::test]
async fn small_changes_of_an_upload_are_stored() {
    let bench = Bench::new().await;
    let (catalog, upload) = (&bench.catalog, bench.upload(1).await);
    assert!(catalog.expect_digest(upload, "ab", 2).await.unwrap());
    assert!(!catalog.expect_digest(upload, "cd", 2).await.unwrap());
    catalog.withhold_upload(upload, true).await.unwrap();
    let row = catalog.upload(upload).await.unwrap().unwrap();
    assert_eq!((row.expected_sha256.as_deref(), row.completion), (Some("ab"), Completion::Withheld));
    catalog.upload_finishing_or_finished(upload, 1_000, 3).await.unwrap();
    let mut ending = finish(upload, 4);
    ending.to_assemble = true;
    catalog.finish_upload(ending).await.unwrap();
    assert_eq!(catalog.uploads_to_assemble().await.unwrap(), [upload]);
    catalog.upload_assembled(upload).await.unwrap();
    assert!(catalog.uploads_to_assemble().await.unwrap().is_empty());
    assert_eq!(catalog.uploads_in_state(UploadState::Finished, None).await.unwrap().len(), 1);

    let given_up = bench.upload(5).await;
    catalog.take_upload(given_up, "a", 5, 10).await.unwrap();
    catalog.forget_holders().await.unwrap();
    let insert = vec![Extent { start: 0, end: 5, key: "k".into() }];
    catalog.commit_ledger(given_up, None, &LedgerChange { insert, ..LedgerChange::default() }).await.unwrap();
    catalog.forget_ledger(given_up).await.unwrap();
    assert_eq!(catalog.load_ledger(given_up).await.unwrap().extents.len(), 1, "it is still wanted");
    catalog.terminate_upload(given_up, 6).await.unwrap();
    catalog.forget_ledger(given_up).await.unwrap();
    assert!(catalog.load_ledger(given_up).await.is_err());
    assert_eq!(catalog.load_ledger(bench.upload(7).await).await.unwrap(), LedgerState::default());
}

#[tokio::test]
async fn the_same_bytes_are_found_again_and_their_second_source_is_spare() {
    let bench = Bench::new().await;
    let catalog = &bench.catalog;
    let first = bench.asset(1).await;
    let kept = catalog.asset(first).await.unwrap().unwrap();
    let query = ContentQuery {
        tenant: TenantId::DEFAULT,
        byte_len: kept.byte_len,
        sha256: &kept.sha256,
        preset: &kept.preset,
        recipe: "r1",
    };
    assert_eq!(catalog.find_content(&query).await.unwrap().map(|row| row.id), Some(first));
    assert!(catalog.find_content(&ContentQuery { recipe: "r2", ..query }).await.unwrap().is_none());
    let upload = bench.upload(2).await;
    catalog.upload_finishing_or_finished(upload, 1_000, 3).await.unwrap();
    let mut ending = finish(upload, 4);
    ending.sha256 = kept.sha256.clone();
    let second = catalog.finish_upload(ending).await.unwrap();
    assert_eq!(second.content_of, Some(first));
    assert_eq!(catalog.spare_sources().await.unwrap(), [(second.asset, "sources/x".to_owned())]);
    catalog.spare_source_removed(second.asset).await.unwrap();
    assert!(catalog.spare_sources().await.unwrap().is_empty());
    catalog.delete_asset(first, &somebody(), 5).await.unwrap();
    assert_eq!(catalog.content_condition(first).await.unwrap(), Condition::InTheMaking);
    assert_eq!(catalog.encoder_in_use(first).await.unwrap(), None);
}

#[tokio::test]
async fn text_is_compared_by_its_bytes_and_any_character_can_be_stored() {
    let bench = Bench::new().await;
    let catalog = &bench.catalog;
    let mut made = Vec::new();
    for title in ["Äpfel", "zebra \u{0}!", "Zoo_100%"] {
        let upload = bench.upload(1).await;
        catalog.upload_finishing_or_finished(upload, 1_000, 2).await.unwrap();
        let mut ending = finish(upload, 3);
        ending.title = title.to_owned();
        made.push(catalog.finish_upload(ending).await.unwrap().asset);
    }
    let found = async |part: &str| {
        let filter = AssetFilter {
            tenant: TenantId::DEFAULT,
            states: vec![],
            title_contains: Some(part.to_owned()),
            after: None,
            limit: 10,
        };
        let page = catalog.list_assets(&filter).await.unwrap();
        page.rows.into_iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(found("Z").await, [made[2], made[1]]);
    assert_eq!(found("_100%").await, [made[2]], "no wildcards");
    assert_eq!(found("Äp").await, [made[0]]);
    assert!(found("äP").await.is_empty(), "only ASCII has two cases");
}

#[tokio::test]
async fn lists_of_tasks_are_cut_and_filtered() {
    let bench = Bench::new().await;
    bench.planned(1).await;
    let mut filter = TaskFilter {
        tenant: TenantId::DEFAULT,
        asset: None,
        states: vec![TaskState::Ready],
        kinds: vec![TaskKind::Encode, TaskKind::Stills],
        after: None,
        limit: 2,
    };
    let first = bench.catalog.list_tasks(&filter).await.unwrap();
    filter.after = first.next;
    let second = bench.catalog.list_tasks(&filter).await.unwrap();
    assert_eq!((first.rows.len(), second.rows.len(), second.next.is_none()), (2, 1, true));
    let claimed = bench.claim(&EVERY_KIND, 2).await.unwrap();
    bench.catalog.end_back_offs(3).await.unwrap();
    assert!(bench.catalog.release(claimed.task.id, 1, 4).await.unwrap());
    assert_eq!(bench.catalog.api_keys(None).await.unwrap().len(), 0);
    assert_eq!(bench.catalog.api_keys(Some(TenantId::DEFAULT)).await.unwrap().len(), 0);
}
