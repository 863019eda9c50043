//! HTTP/1.1 over one kept connection: a request is bytes that were prepared before, an answer is a status and a body.

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).chars().take(300).collect()
    }

    pub fn expect_success(self, what: &str) -> Result<Vec<u8>> {
        if !self.is_success() {
            bail!("{what}: HTTP {}: {}", self.status, self.text());
        }
        Ok(self.body)
    }
}

pub struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

const HEAD_BYTES_MAX: usize = 64 << 10;

impl Connection {
    pub async fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connect {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: Vec::with_capacity(16 << 10) })
    }

    /// Sends the bytes of one whole request and reads the answer.
    pub async fn send(&mut self, request: &[u8]) -> Result<Answer> {
        self.stream.write_all(request).await?;
        self.answer().await
    }

    async fn more(&mut self) -> Result<()> {
        if self.stream.read_buf(&mut self.read).await? == 0 {
            bail!("the server closed the connection");
        }
        Ok(())
    }

    async fn answer(&mut self) -> Result<Answer> {
        let head_end = loop {
            if let Some(end) = find(&self.read, b"\r\n\r\n") {
                break end;
            }
            if self.read.len() > HEAD_BYTES_MAX {
                bail!("the answer's head is longer than {HEAD_BYTES_MAX} bytes");
            }
            self.more().await?;
        };
        let head = String::from_utf8_lossy(&self.read[..head_end]).to_ascii_lowercase();
        self.read.drain(..head_end + 4);
        let status: u16 =
            head.split_ascii_whitespace().nth(1).and_then(|s| s.parse().ok()).context("no HTTP status")?;
        let header = |name: &str| {
            head.lines().find_map(|l| l.split_once(':').filter(|(n, _)| *n == name)).map(|(_, v)| v.trim())
        };
        let body = if header("transfer-encoding") == Some("chunked") {
            self.chunks().await?
        } else {
            let length = header("content-length").map_or(Ok(0), str::parse).context("content-length")?;
            self.take(length).await?
        };
        Ok(Answer { status, body })
    }

    async fn take(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.read.len() < length {
            self.more().await?;
        }
        let rest = self.read.split_off(length);
        Ok(std::mem::replace(&mut self.read, rest))
    }

    async fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                match find(&self.read, b"\r\n") {
                    Some(end) => break end,
                    None => self.more().await?,
                }
            };
            let line = self.take(end + 2).await?;
            let text = std::str::from_utf8(&line)?.trim();
            let length = usize::from_str_radix(text, 16).with_context(|| format!("chunk length {text:?}"))?;
            let chunk = self.take(length + 2).await?;
            if length == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&chunk[..length]);
        }
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|w| w == what)
}

/// The head of a POST whose body has `length` bytes.
pub fn post_head(path: &str, headers: &[(&str, &str)], length: usize) -> Vec<u8> {
    let mut head = format!("POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-length: {length}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    head.into_bytes()
}

pub async fn get(address: &str, path: &str) -> Result<Answer> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\naccept: application/json\r\n\r\n");
    Connection::open(address).await?.send(request.as_bytes()).await
}

pub async fn post(address: &str, path: &str) -> Result<Answer> {
    Connection::open(address).await?.send(&post_head(path, &[], 0)).await
}

/// `name=value&..` of a query string.
pub fn query_string(pairs: &[(&str, String)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    text.push(char::from(byte))
                }
                _ => text.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    text
}
