//! `/loki/api/v1/tail`: new lines over a WebSocket.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequest, FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use triptych_model::Error;
use triptych_model::logs::{Direction, EntrySelect, LogEntry};
use triptych_runtime::{QueryContext, QueryLimits, now_ns};

use super::{ENTRIES_DEFAULT, Problem, SECOND_NS, answer};
use crate::Shared;
use crate::request::Asked;

/// Loki's: `delay_for` holds lines back so that late ones come in order, at most five seconds.
const DELAY_SECONDS_MAX: i64 = 5;
/// A tail ends after this long; clients connect again.
const TAIL_MAX: Duration = Duration::from_secs(3600);
/// A client that does not take a message for this long is gone.
const SEND_MAX: Duration = Duration::from_secs(10);
const PING_EVERY: Duration = Duration::from_secs(15);

pub async fn tail(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &shared).await;
    let asked = match Asked::from_request(Request::from_parts(parts, body), &shared).await {
        Ok(asked) => asked,
        Err(response) => return response,
    };
    match (prepare(&asked), upgrade) {
        (Err(error), _) => Problem::from(error).into_response(),
        (_, Err(rejection)) => rejection.into_response(),
        (Ok(select), Ok(upgrade)) => upgrade.on_upgrade(move |socket| run(socket, asked, select)),
    }
}

fn prepare(asked: &Asked) -> Result<EntrySelect, Error> {
    let expr = asked.params.required("query")?.to_owned();
    if !matches!(triptych_logql::parse(&expr)?, triptych_logql::Expr::Log(_)) {
        return Err(Error::invalid("tail takes a log query, not a metric query"));
    }
    let delay = asked.params.limit("delay_for", 0)? as i64;
    if delay > DELAY_SECONDS_MAX {
        return Err(Error::invalid(format!("delay_for can't be greater than {DELAY_SECONDS_MAX}")));
    }
    let now = now_ns();
    let start_ns = asked.params.time_ns("start")?.unwrap_or(now - 3600 * SECOND_NS);
    let limit = asked.params.limit("limit", ENTRIES_DEFAULT)?.min(asked.limits.query.entries_max.max(1));
    Ok(EntrySelect { expr, start_ns, end_ns: now, direction: Direction::Backward, limit })
}

/// First what is there already (the newest `limit` lines, oldest first), then what arrives.
async fn run(mut socket: WebSocket, asked: Asked, select: EntrySelect) {
    let ctx = QueryContext::new(
        asked.ctx.tenant().clone(),
        QueryLimits { timeout: TAIL_MAX, ..*asked.ctx.limits() },
    );
    let _cancel = ctx.cancel_on_drop();
    if let Err(error) = follow(&mut socket, &asked, &ctx, select).await {
        let reason = error.message.chars().take(120).collect::<String>();
        let frame = axum::extract::ws::CloseFrame { code: 1011, reason: reason.into() };
        let _ = socket.send(Message::Close(Some(frame))).await;
    }
}

async fn follow(
    socket: &mut WebSocket,
    asked: &Asked,
    ctx: &QueryContext,
    select: EntrySelect,
) -> Result<(), Error> {
    let categorized = answer::is_categorized(&asked.headers);
    // Subscribe before reading the past, so that nothing falls between the two.
    let mut arriving = asked.shared.logs.tail(ctx, &select.expr, select.end_ns).await?;
    let mut past = Vec::new();
    let mut batches = asked.shared.logs.entries(ctx, &select).await?;
    while let Some(batch) = batches.next().await {
        past.extend(batch?);
        if past.len() >= select.limit {
            break;
        }
    }
    past.truncate(select.limit);
    past.reverse();
    if !past.is_empty() && !send(socket, &past, categorized).await {
        return Ok(());
    }
    let mut ping = tokio::time::interval(PING_EVERY);
    loop {
        tokio::select! {
            batch = arriving.next() => match batch {
                Some(batch) => {
                    if !send(socket, &batch?, categorized).await {
                        return Ok(());
                    }
                }
                None => return Ok(()),
            },
            message = socket.recv() => match message {
                None | Some(Err(_) | Ok(Message::Close(_))) => return Ok(()),
                Some(Ok(_)) => {}
            },
            _ = ping.tick() => {
                if socket.send(Message::Ping(bytes::Bytes::new())).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// False when the client is gone.
async fn send(socket: &mut WebSocket, entries: &[LogEntry], categorized: bool) -> bool {
    let mut out = String::from("{\"streams\":");
    answer::groups(&mut out, entries, categorized);
    out.push_str(",\"dropped_entries\":null}");
    matches!(tokio::time::timeout(SEND_MAX, socket.send(Message::Text(out.into()))).await, Ok(Ok(())))
}
