//! As much of HTTP/1.1 as a load generator needs: one request, one answer with a length.

use std::io::{Error, ErrorKind, Result};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A keep-alive connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    head: &'a [u8],
    pub(crate) body: &'a [u8],
}

impl Connection {
    pub(crate) async fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 16 * 1024] })
    }

    /// Sends a whole request and reads the whole answer.
    pub(crate) async fn send(&mut self, request: &[u8]) -> Result<Answer<'_>> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        loop {
            if let Some((status, head, total)) = whole(&self.buffer[..filled])? {
                if filled > total {
                    return Err(Error::new(ErrorKind::InvalidData, "more than one answer"));
                }
                if filled == total {
                    return Ok(Answer { status, head: &self.buffer[..head], body: &self.buffer[head..total] });
                }
            }
            if filled == self.buffer.len() {
                return Err(Error::new(ErrorKind::InvalidData, "an answer over 16 KiB"));
            }
            match self.stream.read(&mut self.buffer[filled..]).await? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                read => filled += read,
            }
        }
    }
}

/// Status, length of the head, and of the whole answer, once the head is there.
fn whole(bytes: &[u8]) -> Result<Option<(u16, usize, usize)>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = &bytes[..end + 4];
    let status = head
        .get(9..12)
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| Error::new(ErrorKind::InvalidData, "no status"))?;
    let length = match header(head, "content-length") {
        Some(length) => length.parse().map_err(|_| Error::new(ErrorKind::InvalidData, "no length"))?,
        None if status == 204 => 0,
        None => return Err(Error::new(ErrorKind::InvalidData, "an answer without a length")),
    };
    Ok(Some((status, head.len(), head.len() + length)))
}

fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    std::str::from_utf8(head).ok()?.split("\r\n").skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

impl Answer<'_> {
    /// A count out of the receipt: a JSON body, or the header that foreign formats get.
    pub(crate) fn figure(&self, name: &str) -> Option<u64> {
        if let Some(verdict) = header(self.head, "firsthop-receipt") {
            return verdict.split(", ").find_map(|part| part.strip_prefix(name)?.strip_prefix('=')?.parse().ok());
        }
        let body = std::str::from_utf8(self.body).ok()?;
        let (_, behind) = body.split_once(&format!("\"{name}\":"))?;
        behind.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_figures_of_both_kinds_of_receipt() {
        let head = b"HTTP/1.1 200 OK\r\nFirsthop-Receipt: stored=1, duplicate=2\r\nContent-Length: 16\r\n\r\n";
        assert_eq!(whole(head).unwrap(), Some((200, head.len(), head.len() + 16)));
        let answer = Answer { status: 200, head, body: b"{\"success\":true}" };
        assert_eq!((answer.figure("stored"), answer.figure("duplicate")), (Some(1), Some(2)));

        let answer = Answer {
            status: 200,
            head: b"HTTP/1.1 200 OK\r\n\r\n",
            body: b"{\"count\":20,\"stored\":19,\"duplicate\":1}",
        };
        assert_eq!((answer.figure("stored"), answer.figure("duplicate")), (Some(19), Some(1)));
    }

    #[test]
    fn waits_for_the_whole_head() {
        assert_eq!(whole(b"HTTP/1.1 204 No Content\r\nServer: x\r\n").unwrap(), None);
        assert_eq!(whole(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap(), Some((204, 27, 27)));
        assert!(whole(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
