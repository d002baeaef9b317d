//! A plain HTTP client, and what it is answered.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, ErrorKind, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use firsthop_intake::Receipt;
use serde_json::Value as Json;

use super::{base64, text, until};

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn text(&self) -> String {
        text(&self.body)
    }

    pub(crate) fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem = self.json();
        let code = problem["code"].as_str().expect("a code").to_owned();
        assert_eq!(problem["type"], format!("https://firsthop.dev/problems/{code}"));
        assert_eq!(problem["status"], self.status);
        assert!(problem["title"].is_string() && problem["retryable"].is_boolean());
        code
    }

    pub(crate) fn receipt(&self) -> Receipt {
        assert_eq!(self.status, 200, "{}", self.text());
        let receipt = Receipt::from_json(&self.body).expect("a receipt");
        let known = receipt.stored + receipt.suppressed + receipt.duplicate + receipt.conflict;
        assert_eq!(known, receipt.count, "{receipt:?}");
        receipt
    }

    pub(crate) fn verdict(&self) -> &str {
        self.header("firsthop-receipt")
    }
}

/// A client that keeps one connection and believes nothing.
pub(crate) struct Client {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    /// A client that is another peer.
    pub(crate) fn from(own: u8, address: SocketAddr) -> Self {
        Self { address, stream: Some(BufReader::new(connect_from(own, address))) }
    }

    pub(crate) fn get(&mut self, path: &str) -> Response {
        self.request("GET", path, &[], b"")
    }

    pub(crate) fn frame(&mut self, body: &[u8]) -> Response {
        self.request("POST", "/v1/f", &[], body)
    }

    /// Sends a frame as a page does: again and again, until it is taken. Where the server is given little time, any answer may
    /// be that it was too slow.
    pub(crate) fn deliver(&mut self, frame: &[u8]) -> Receipt {
        let mut response = self.frame(frame);
        until("it is taken", || {
            if response.status == 503 {
                response = self.frame(frame);
            }
            response.status != 503
        });
        response.receipt()
    }

    pub(crate) fn segment(&mut self, path: &str, key: &str, json: &str) -> Response {
        let credentials = base64(format!("{key}:").as_bytes());
        let authorization = format!("Basic {credentials}");
        self.request(
            "POST",
            path,
            &[("Authorization", &authorization), ("Content-Type", "application/json")],
            json.as_bytes(),
        )
    }

    pub(crate) fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.try_request(method, path, headers, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    pub(crate) fn try_request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Response> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.raw(&bytes)
    }

    /// Sends bytes as they are and reads one answer.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> std::io::Result<Response> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.address)?;
                stream.set_read_timeout(Some(Duration::from_secs(30)))?;
                stream.set_nodelay(true)?;
                BufReader::new(stream)
            }
        };
        // An answer may come before all is sent, and the connection end: then it is still there to be read.
        let sent = stream.get_mut().write_all(bytes);
        let response = read_response(&mut stream, !bytes.starts_with(b"HEAD"));
        if let (Err(error), Err(_)) = (sent, &response) {
            return Err(error);
        }
        let response = response?;
        if response.header("connection") != "close" {
            self.stream = Some(stream);
        }
        Ok(response)
    }
}

/// Connects from another of the machine's own addresses, 127.0.0.`own`: to the server, another peer.
pub(crate) fn connect_from(own: u8, address: SocketAddr) -> TcpStream {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    }
    let connect = async {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from(([127, 0, 0, own], 0))).expect("an address");
        socket.connect(address).await.expect("connects").into_std().expect("a stream")
    };
    let stream = RUNTIME.with(|runtime| runtime.block_on(connect));
    stream.set_nonblocking(false).expect("blocking");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    stream
}

pub(crate) fn read_response(stream: &mut impl BufRead, has_body: bool) -> std::io::Result<Response> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(ErrorKind::InvalidData)?;
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.trim().to_owned()),
            None => break,
        };
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().expect("a length"));
    let mut body = vec![0; if has_body { length } else { 0 }];
    stream.read_exact(&mut body)?;
    Ok(Response { status, headers, body })
}
