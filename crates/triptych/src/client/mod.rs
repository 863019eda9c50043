//! The small clients: what `promtool query`, `logcli` and `tempo-cli` do most, over the same HTTP APIs.

mod show;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use reqwest::Url;
use serde_json::Value as Json;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use triptych_runtime::now_ns;

use crate::cli::{ClientFlags, LogsCommand, QueryCommand, RangeFlags};

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

pub fn query(command: QueryCommand) -> Result<()> {
    runtime()?.block_on(async {
        match command {
            QueryCommand::Metrics { expr, range, step, client } => metrics(expr, range, step, client).await,
            QueryCommand::Logs { expr, range, limit, forward, client } => {
                lines(expr, range, limit, forward, client).await
            }
            QueryCommand::Traces { query, range, limit, client } => traces(query, range, limit, client).await,
        }
    })
}

pub fn logs(command: LogsCommand) -> Result<()> {
    let LogsCommand::Tail { expr, limit, client } = command;
    runtime()?.block_on(tail(expr, limit, client))
}

/// Start and end in nanoseconds.
fn range_ns(range: &RangeFlags) -> Result<(i64, i64)> {
    let time = |text: &str| -> Result<i64> {
        if let Ok(seconds) = text.parse::<f64>() {
            return Ok((seconds * 1e9) as i64);
        }
        let time: jiff::Timestamp = text
            .parse()
            .with_context(|| format!("{text:?} is not a time; write 2026-01-31T12:00:00Z or Unix seconds"))?;
        Ok(i64::try_from(time.as_nanosecond())?)
    };
    let end = range.end.as_deref().map_or(Ok(now_ns()), time)?;
    let start = match &range.start {
        Some(start) => time(start)?,
        None => {
            let since = triptych_config::duration::parse(&range.since).map_err(anyhow::Error::msg)?;
            end - since.as_nanos() as i64
        }
    };
    Ok((start, end))
}

fn seconds(ns: i64) -> String {
    format!("{}.{:03}", ns / 1_000_000_000, ns / 1_000_000 % 1000)
}

async fn get(client: &ClientFlags, path: &str, params: &[(&str, String)]) -> Result<Json> {
    let url = Url::parse_with_params(&format!("{}{path}", client.server.trim_end_matches('/')), params)
        .with_context(|| format!("--server {}", client.server))?;
    let http = reqwest::Client::builder().connect_timeout(Duration::from_secs(5)).build()?;
    let mut request = http.get(url);
    if let Some(tenant) = &client.tenant {
        request = request.header("x-scope-orgid", tenant);
    }
    let response = request
        .send()
        .await
        .with_context(|| format!("{} does not answer; is Triptych running there?", client.server))?;
    let status = response.status();
    let body = response.text().await?;
    if !status.is_success() {
        let said =
            serde_json::from_str::<Json>(&body).ok().and_then(|j| Some(j.get("error")?.as_str()?.to_owned()));
        bail!("{status}: {}", said.unwrap_or(body).trim());
    }
    serde_json::from_str(&body).with_context(|| format!("{path} did not answer with JSON"))
}

async fn metrics(expr: String, range: RangeFlags, step: Option<String>, client: ClientFlags) -> Result<()> {
    let (start, end) = range_ns(&range)?;
    let answer = match step {
        Some(step) => {
            let params = [("query", expr), ("start", seconds(start)), ("end", seconds(end)), ("step", step)];
            get(&client, "/api/v1/query_range", &params).await?
        }
        None => get(&client, "/api/v1/query", &[("query", expr), ("time", seconds(end))]).await?,
    };
    show::print(&client, &answer, show::metrics)
}

async fn lines(
    expr: String,
    range: RangeFlags,
    limit: u32,
    forward: bool,
    client: ClientFlags,
) -> Result<()> {
    let (start, end) = range_ns(&range)?;
    let direction = if forward { "forward" } else { "backward" };
    let params = [
        ("query", expr),
        ("start", start.to_string()),
        ("end", end.to_string()),
        ("limit", limit.to_string()),
        ("direction", direction.to_owned()),
    ];
    let answer = get(&client, "/loki/api/v1/query_range", &params).await?;
    show::print(&client, &answer, |answer| show::lines(answer, forward))
}

async fn traces(query: String, range: RangeFlags, limit: u32, client: ClientFlags) -> Result<()> {
    if query.len() <= 32 && !query.is_empty() && query.bytes().all(|b| b.is_ascii_hexdigit()) {
        let answer = get(&client, &format!("/api/traces/{query}"), &[]).await?;
        return show::print(&client, &answer, show::trace);
    }
    let (start, end) = range_ns(&range)?;
    let params = [
        ("q", query),
        ("start", (start / 1_000_000_000).to_string()),
        ("end", (end / 1_000_000_000 + 1).to_string()),
        ("limit", limit.to_string()),
    ];
    let answer = get(&client, "/api/search", &params).await?;
    show::print(&client, &answer, show::traces)
}

async fn tail(expr: String, limit: u32, client: ClientFlags) -> Result<()> {
    let http = format!("{}/loki/api/v1/tail", client.server.trim_end_matches('/'));
    let params = [("query", expr), ("limit", limit.to_string())];
    let mut url =
        Url::parse_with_params(&http, &params).with_context(|| format!("--server {}", client.server))?;
    let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
    let _ = url.set_scheme(scheme);
    let mut request = url.as_str().into_client_request()?;
    if let Some(tenant) = &client.tenant {
        request.headers_mut().insert("x-scope-orgid", tenant.parse()?);
    }
    let (mut socket, _) = match tokio_tungstenite::connect_async(request).await {
        Ok(connected) => connected,
        Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
            let body = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            bail!("{}: {}", response.status(), body.trim());
        }
        Err(error) => return Err(error).with_context(|| format!("{} does not answer", client.server)),
    };
    while let Some(message) = socket.next().await {
        match message? {
            Message::Text(text) if client.json => println!("{text}"),
            Message::Text(text) => show::tail(&serde_json::from_str(&text)?),
            Message::Close(Some(frame)) if !frame.reason.is_empty() => bail!("{}", frame.reason),
            Message::Close(_) => break,
            _ => {}
        }
    }
    Ok(())
}
