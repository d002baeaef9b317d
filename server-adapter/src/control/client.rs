//! The command's end of the socket. Blocking: a command does one thing at a time.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use super::{
    path,
    wire::{Answer, Command, MAX_ANSWER, PATH, Reply, Said, VERSION},
};
use crate::Error;

/// Longest wait for an answer: a command does a bounded part, but a slow disk takes its time.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server that listens.
#[derive(Debug)]
pub(super) struct Client {
    data: PathBuf,
    /// The connection that showed that somebody listens, for the first command.
    open: Option<UnixStream>,
}

impl Client {
    /// Finds the server of a data folder.
    pub(super) fn connect(data: &Path) -> Result<Self, Error> {
        let data = data.to_owned();
        let open = connect(&data).map_err(|error| {
            Error::Control(format!(
                "{}: another process holds this folder, and it does not take commands ({error}). If it is `firsthop serve`, it is \
                 starting, stopping or stuck: see its log. If it is a service with the router mounted, it has to open the \
                 control socket (Server::control); or stop it, and give the command again",
                data.display()
            ))
        })?;
        Ok(Self { data, open: Some(open) })
    }

    /// The connection itself.
    pub(super) fn into_stream(self) -> Result<UnixStream, Error> {
        let Self { data, open } = self;
        open.map_or_else(|| connect(&data), Ok).map_err(|error| Error::Io("control socket".into(), error))
    }

    pub(super) fn call(&mut self, command: &Command) -> Result<Reply, Error> {
        let broken = |error: io::Error| {
            Error::Control(format!(
                "{}: the server did not answer ({error}); what it had begun may be done",
                self.data.display()
            ))
        };
        let stream = match self.open.take() {
            Some(stream) => stream,
            None => connect(&self.data).map_err(broken)?,
        };
        let (status, body) = exchange(stream, command).map_err(broken)?;
        understand(status, &body, &self.data)
    }
}

fn connect(data: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path::find(data))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// One request and one answer.
fn exchange(mut stream: UnixStream, command: &Command) -> io::Result<(u16, Vec<u8>)> {
    let body = serde_json::to_vec(command)?;
    let mut request = format!(
        "POST {PATH} HTTP/1.1\r\nHost: control\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(&body);
    // A refusal may come before all is sent, and the connection end: then it is still there to be read.
    let sent = stream.write_all(&request);
    let mut answer = Vec::new();
    let read = stream.take(MAX_ANSWER).read_to_end(&mut answer);
    if let Some(whole) = parse(&answer) {
        return Ok(whole);
    }
    sent.and(read)?;
    Err(io::Error::new(io::ErrorKind::InvalidData, "what it said is no whole HTTP answer"))
}

/// Status and body of an answer that tells its length, as ours do.
fn parse(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = str::from_utf8(&answer[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length =
        lines.filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = length?.1.trim().parse().ok()?;
    let body = &answer[end + 4..];
    (body.len() == length).then(|| (status, body.to_vec()))
}

/// What an answer says, also one of another version.
fn understand(status: u16, body: &[u8], data: &Path) -> Result<Reply, Error> {
    #[derive(Deserialize)]
    struct Whose {
        version: String,
    }
    let Ok(Whose { version }) = serde_json::from_slice(body) else {
        let socket = path::find(data);
        let what = format!("{}: what listens there is no firsthop (status {status})", socket.display());
        return Err(Error::Control(what));
    };
    let other = |what: String| {
        Error::Control(format!(
            "the server that holds {} is firsthop {version}, and this is firsthop {VERSION}: {what}. Give the command with \
             the server's own version, or restart the server with this one",
            data.display()
        ))
    };
    match serde_json::from_slice::<Answer>(body) {
        Ok(Answer { result: Said::Reply(reply), .. }) => Ok(reply),
        // Of the same version a refusal stands for itself.
        Ok(Answer { result: Said::Error(refused), .. }) if version == VERSION || refused.kind != "control" => {
            Err(refused.into_error())
        }
        Ok(Answer { result: Said::Error(refused), .. }) => Err(other(refused.message)),
        Err(error) => Err(other(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(body: &str) -> String {
        understand(422, body.as_bytes(), Path::new("data"))
            .map_or_else(|error| error.to_string(), |reply| format!("{reply:?}"))
    }

    #[test]
    fn another_version_is_named() {
        let foreign = said(r#"{"version":"7.0.0","error":{"kind":"control","message":"unknown variant `polish`"}}"#);
        assert!(
            foreign.contains("firsthop 7.0.0") && foreign.contains(VERSION) && foreign.contains("polish"),
            "{foreign}"
        );
        let foreign = said(r#"{"version":"7.0.0","reply":{"polished":3}}"#);
        assert!(foreign.contains("firsthop 7.0.0") && foreign.contains("restart the server"), "{foreign}");
        // A refusal that has nothing to do with versions stands for itself.
        assert_eq!(
            said(r#"{"version":"7.0.0","error":{"kind":"tenant","message":"no tenant \"x\""}}"#),
            "no tenant \"x\""
        );
        assert!(said("<html>").contains("no firsthop"));
    }

    #[test]
    fn half_an_answer_is_none() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(parse(whole), Some((200, b"{}".to_vec())));
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), None, "{length}");
        }
        assert_eq!(parse(b"SSH-2.0-x\r\n\r\n"), None);
    }
}
