//! `/loki/api/v1/tail`: new lines over a WebSocket.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequest, FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use futures::stream::SplitStream;
use futures::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use triptych_model::Error;
use triptych_model::logs::{Direction, EntrySelect};
use triptych_runtime::{QueryContext, QueryLimits, now_ns};

use super::outbox::{Outbox, message};
use super::{ENTRIES_DEFAULT, Problem, SECOND_NS, answer};
use crate::Shared;
use crate::request::Asked;

/// Loki's: `delay_for` holds lines back so that late ones come in order, at most five seconds.
const DELAY_SECONDS_MAX: i64 = 5;
/// A tail ends after this long; clients connect again.
const TAIL_MAX: Duration = Duration::from_secs(3600);
/// A client that does not take a message for this long is gone.
const SEND_MAX: Duration = Duration::from_secs(10);
/// What a tail takes on its way from the ingesters: windows of its streams, and messages that wait for the client.
const UNDER_WAY_BYTES: usize = 3 << 20;
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
        (Ok((select, delay)), Ok(upgrade)) => {
            upgrade.on_upgrade(move |socket| run(socket, asked, select, delay))
        }
    }
}

/// What is there already, and how long lines are held back.
fn prepare(asked: &Asked) -> Result<(EntrySelect, Duration), Error> {
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
    let select = EntrySelect { expr, start_ns, end_ns: now, direction: Direction::Backward, limit };
    Ok((select, Duration::from_secs(delay as u64)))
}

/// Reads the store and writes to the client side by side, so that neither waits for the other.
async fn run(socket: WebSocket, asked: Asked, select: EntrySelect, delay: Duration) {
    let ctx = QueryContext::new(
        asked.ctx.tenant().clone(),
        QueryLimits { timeout: TAIL_MAX, ..*asked.ctx.limits() },
    );
    let _cancel = ctx.cancel_on_drop();
    let (mut to_client, from_client) = socket.split();
    let (outgoing, mut messages) = mpsc::channel::<Message>(1);
    let write = async move {
        while let Some(message) = messages.recv().await {
            // An error or none in time: the client is gone.
            let Ok(Ok(())) = tokio::time::timeout(SEND_MAX, to_client.send(message)).await else { return };
        }
    };
    let read = async move {
        if let Err(error) = follow(from_client, &outgoing, &asked, &ctx, select, delay).await {
            let reason = error.message.chars().take(120).collect::<String>();
            let frame = CloseFrame { code: 1011, reason: reason.into() };
            let _ = outgoing.send(Message::Close(Some(frame))).await;
        }
    };
    tokio::join!(write, read);
}

/// First what is there already (the newest `limit` lines, oldest first), then what arrives. Ends when the client goes.
async fn follow(
    mut from_client: SplitStream<WebSocket>,
    outgoing: &mpsc::Sender<Message>,
    asked: &Asked,
    ctx: &QueryContext,
    select: EntrySelect,
    delay: Duration,
) -> Result<(), Error> {
    let _under_way = ctx.reserve(UNDER_WAY_BYTES)?;
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
    if !past.is_empty()
        && outgoing.send(Message::Text(message(&past, &[], categorized).into())).await.is_err()
    {
        return Ok(());
    }
    drop(past);
    let mut outbox = Outbox::new(delay, ctx.reserve(0)?);
    let mut ping = tokio::time::interval(PING_EVERY);
    loop {
        let due = outbox.is_due(Instant::now());
        let later = outbox.next_due().filter(|_| !due);
        tokio::select! {
            batch = arriving.next() => match batch {
                Some(batch) => batch?.into_iter().for_each(|entry| outbox.push(entry, Instant::now())),
                None => return Ok(()),
            },
            place = outgoing.reserve(), if due => match place {
                Ok(place) => place.send(Message::Text(outbox.message(categorized).into())),
                Err(_) => return Ok(()),
            },
            () = tokio::time::sleep_until(later.unwrap_or_else(Instant::now)), if later.is_some() => {}
            message = from_client.next() => match message {
                None | Some(Err(_) | Ok(Message::Close(_))) => return Ok(()),
                Some(Ok(_)) => {}
            },
            // Where there is no place for it the client is being written to anyway.
            _ = ping.tick() => {
                let _ = outgoing.try_send(Message::Ping(bytes::Bytes::new()));
            }
        }
    }
}
