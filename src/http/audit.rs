//! `/v1/audit`: who did what to jobs, videos, queues, workers, tenants and keys, and why. Nothing here writes; each line
//! came with the change that it tells of.

use super::{
    auth::Caller,
    extract::{Query, page_rows},
    links,
    openapi::ProblemBody,
    problem::{Kind, Problem},
};
use crate::app::App;
use axum::{Json, extract::State};
use reelyard_catalog::{AuditFilter, AuditRow, Scope};
use reelyard_model::TenantId;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// Only lines about this: the id of a job, asset, worker or tenant, or the name of a queue.
    subject: Option<String>,
    /// `next_before` of the page before: only lines with a smaller number.
    before: Option<i64>,
    /// Lines on the page: 50 unless asked otherwise, 200 at most.
    limit: Option<u32>,
}

/// A page of the log, newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct AuditPage {
    items: Vec<AuditLine>,
    /// Give it as `before` to get the next page; null on the last.
    next_before: Option<i64>,
}

/// What somebody did.
#[derive(Serialize, ToSchema)]
struct AuditLine {
    /// Rises with every line.
    number: i64,
    at: String,
    /// An API key by its label and id, or the command line on the server's machine.
    #[schema(example = "key \"on-call\" (019a9f6b-1f00-7c43-b8cc-2f7c2f6a6a01)")]
    actor: String,
    #[schema(example = "queue.paused")]
    action: String,
    /// The id of a job, asset, worker, tenant or key, or the name of a queue.
    #[schema(example = "encode")]
    subject: String,
    /// In their words, where they gave one.
    reason: Option<String>,
    /// Whose it was; null: the whole fleet's.
    tenant: Option<String>,
    /// What it was before, and more that depends on the action.
    data: serde_json::Value,
}

impl From<AuditRow> for AuditLine {
    fn from(row: AuditRow) -> Self {
        Self {
            number: row.seq,
            at: links::rfc3339(row.at_ms),
            actor: row.actor,
            action: row.action,
            subject: row.subject,
            reason: row.reason,
            tenant: row.tenant.map(|tenant| tenant.to_string()),
            data: row.data,
        }
    }
}

/// List what operators did, newest first: lines of your tenant and of the whole fleet. A key of the default tenant, whose
/// keys the server itself makes, sees the lines of all tenants.
#[utoipa::path(get, path = "/v1/audit", tag = "operations", params(AuditQuery),
    responses((status = 200, description = "A page of the log.", body = AuditPage),
              (status = 400, description = "A filter does not have its form.", body = ProblemBody, content_type = "application/problem+json")))]
pub(super) async fn list_audit(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<AuditQuery>,
) -> Result<Json<AuditPage>, Problem> {
    caller.require(Scope::Admin)?;
    if query.before.is_some_and(|before| before < 1) {
        return Err(Problem::new(Kind::BadRequest, "`before` is the number of a line, from 1.")
            .with("parameter", "before"));
    }
    let limit = page_rows(query.limit);
    let filter = AuditFilter {
        tenant: (caller.tenant != TenantId::DEFAULT).then_some(caller.tenant),
        subject: query.subject,
        before_seq: query.before,
        limit: limit + 1,
    };
    let mut rows = app.catalog.audit_log(&filter).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next_before = rows.last().filter(|_| more).map(|row| row.seq);
    Ok(Json(AuditPage { items: rows.into_iter().map(AuditLine::from).collect(), next_before }))
}
