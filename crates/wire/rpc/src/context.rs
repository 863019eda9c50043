//! What travels with a question besides the question: tenant, time left, budgets; and back: the report.

use std::time::Duration;

use tonic::Status;
use triptych_model::{Error, Result, Share, TenantId};
use triptych_runtime::{QueryContext, QueryLimits, ReadReport};

use crate::proto;
use crate::status::to_status;

/// Longest time a question may be given by a caller, and what it gets when it asks for nothing.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

pub(crate) fn context_to_proto(ctx: &QueryContext) -> Option<proto::Context> {
    let limits = ctx.limits();
    Some(proto::Context {
        tenant: ctx.tenant().as_str().to_owned(),
        timeout_ms: ctx.remaining().as_millis() as u64,
        read_bytes_max: limits.read_bytes_max,
        rows_max: limits.rows_max,
        memory_bytes_max: limits.memory_bytes_max as u64,
        share: ctx.share().map(|share| proto::Share {
            members: share.members().iter().map(|member| member.to_string()).collect(),
            mine: share.mine() as u32,
            failed: share.failed().iter().map(|at| *at as u32).collect(),
        }),
    })
}

pub(crate) fn context_from_proto(context: Option<proto::Context>) -> Result<QueryContext, Status> {
    let context = context.ok_or_else(|| Status::invalid_argument("context is missing"))?;
    let tenant = TenantId::new(&context.tenant).map_err(to_status)?;
    let ctx = QueryContext::new(
        tenant,
        QueryLimits {
            read_bytes_max: context.read_bytes_max,
            rows_max: context.rows_max,
            memory_bytes_max: usize::try_from(context.memory_bytes_max).unwrap_or(usize::MAX),
            timeout: Duration::from_millis(context.timeout_ms).min(TIMEOUT_MAX),
        },
    );
    let Some(proto::Share { members, mine, failed }) = context.share else { return Ok(ctx) };
    let members = members.into_iter().map(Into::into).collect();
    let failed = failed.into_iter().map(|at| at as usize).collect();
    let share = Share::instead_of(members, mine as usize, failed).ok_or_else(|| {
        Status::invalid_argument("share: whoever is asked is not among those who are asked, or has failed")
    })?;
    Ok(ctx.with_share(share))
}

pub(crate) fn report_to_proto(ctx: &QueryContext) -> Option<proto::Report> {
    let ReadReport { read_bytes, rows, blocks, chunks, missed, warnings, infos } = ctx.report();
    Some(proto::Report { read_bytes, rows, blocks, chunks, missed, warnings, infos })
}

/// Adds a peer's report to the question it was part of.
pub(crate) fn take_report(ctx: &QueryContext, report: Option<proto::Report>) {
    if let Some(proto::Report { read_bytes, rows, blocks, chunks, missed, warnings, infos }) = report {
        ctx.add_report(ReadReport { read_bytes, rows, blocks, chunks, missed, warnings, infos });
    }
}

/// A call that ends at the question's deadline, or when it is cancelled.
pub(crate) async fn within<T>(
    ctx: &QueryContext,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T> {
    tokio::select! {
        biased;
        () = ctx.cancelled() => Err(Error::cancelled("query was cancelled")),
        answer = tokio::time::timeout(ctx.remaining(), call) => match answer {
            Ok(answer) => answer.map_err(|status| crate::status::from_status(&status)),
            Err(_) => Err(Error::unavailable(format!("query timed out after {:?}", ctx.limits().timeout))),
        },
    }
}
