//! As much of HTTP/1.1 as a load generator needs: one request, one answer with a length.

use std::{
    io::{Error, ErrorKind, Read, Result, Write},
    net::TcpStream,
};

use memchr::memmem;

/// Longest answer.
const MOST: usize = 16 * 1024;

/// A keep-alive connection, of a socket that blocks or of one that does not.
#[derive(Debug)]
pub(crate) struct Connection<S> {
    pub(crate) stream: S,
    /// Of the request, so much is sent.
    sent: usize,
    buffer: Box<[u8; MOST]>,
    filled: usize,
}

/// One answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    /// The receipt that foreign formats get in a header.
    receipt: Option<&'a [u8]>,
    pub(crate) body: &'a [u8],
}

impl Connection<TcpStream> {
    pub(crate) fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self::new(stream))
    }
}

impl<S> Connection<S> {
    fn new(stream: S) -> Self {
        Self { stream, sent: 0, buffer: Box::new([0; MOST]), filled: 0 }
    }

    /// The same connection, by another kind of socket.
    pub(crate) fn by<T>(self, other: impl FnOnce(S) -> T) -> Connection<T> {
        Connection::new(other(self.stream))
    }
}

impl<S: Read + Write> Connection<S> {
    /// Sends a whole request and reads the whole answer. Of a socket that blocks.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Result<Answer<'_>> {
        self.begin(request)?;
        while self.answer()?.is_none() {
            self.read()?;
        }
        self.answer()?.ok_or_else(|| ErrorKind::UnexpectedEof.into())
    }

    /// Begins with a request, once the last one was answered. Returns whether all of it is sent.
    pub(crate) fn begin(&mut self, request: &[u8]) -> Result<bool> {
        (self.sent, self.filled) = (0, 0);
        self.send(request)
    }

    /// Sends more of it, as far as there is room.
    pub(crate) fn send(&mut self, request: &[u8]) -> Result<bool> {
        while self.sent < request.len() {
            match self.stream.write(&request[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Reads what is there. Returns whether [an answer](Self::answer) may be.
    pub(crate) fn read(&mut self) -> Result<bool> {
        loop {
            if self.filled == MOST {
                return Err(Error::new(ErrorKind::InvalidData, "an answer over 16 KiB"));
            }
            match self.stream.read(&mut self.buffer[self.filled..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    self.filled += read;
                    // A socket that had less than there is room for has no more, and asking again would be a call for nothing.
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The answer, if all of it is there.
    pub(crate) fn answer(&self) -> Result<Option<Answer<'_>>> {
        let bytes = &self.buffer[..self.filled];
        match Answer::parse(bytes)? {
            Some((_, total)) if total < bytes.len() => Err(Error::new(ErrorKind::InvalidData, "more than one answer")),
            Some((answer, _)) => Ok(Some(answer)),
            None => Ok(None),
        }
    }
}

impl<'a> Answer<'a> {
    /// A whole answer, and how long it is. None: some of it is to come.
    fn parse(bytes: &'a [u8]) -> Result<Option<(Self, usize)>> {
        let wrong = |what: &str| Error::new(ErrorKind::InvalidData, what.to_owned());
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Response::new(&mut headers);
        let begin = match head.parse(bytes).map_err(|error| wrong(&error.to_string()))? {
            httparse::Status::Complete(begin) => begin,
            httparse::Status::Partial => return Ok(None),
        };
        let status = head.code.ok_or_else(|| wrong("no status"))?;
        let (mut length, mut receipt) = (None, None);
        for header in head.headers.iter() {
            if header.name.eq_ignore_ascii_case("content-length") {
                let text = std::str::from_utf8(header.value).ok();
                length = Some(text.and_then(|text| text.parse().ok()).ok_or_else(|| wrong("no length"))?);
            } else if header.name.eq_ignore_ascii_case("firsthop-receipt") {
                receipt = Some(header.value);
            }
        }
        let length: usize = match length {
            Some(length) => length,
            None if status == 204 => 0,
            None => return Err(wrong("an answer without a length")),
        };
        let total = begin.checked_add(length).ok_or_else(|| wrong("no length"))?;
        Ok(bytes.get(begin..total).map(|body| (Self { status, receipt, body }, total)))
    }

    /// How many events were stored and how many were there already, by the receipt: a JSON body, or the header that foreign formats get.
    pub(crate) fn stored_and_duplicate(&self) -> (u64, u64) {
        match self.receipt {
            Some(receipt) => (figure(receipt, b"stored="), figure(receipt, b"duplicate=")),
            None => (figure(self.body, b"\"stored\":"), figure(self.body, b"\"duplicate\":")),
        }
    }
}

/// The number behind a name; 0 if it is not there.
fn figure(text: &[u8], name: &[u8]) -> u64 {
    let Some(at) = memmem::find(text, name) else { return 0 };
    let digits = text[at + name.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn reads_the_figures_of_both_kinds_of_receipt() {
        let bytes = b"HTTP/1.1 200 OK\r\nFirsthop-Receipt: stored=1, duplicate=2\r\nContent-Length: 16\r\n\r\n{\"success\":true}";
        let (answer, total) = Answer::parse(bytes).unwrap().unwrap();
        assert_eq!((answer.stored_and_duplicate(), total), ((1, 2), bytes.len()));

        let bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 38\r\n\r\n{\"count\":20,\"stored\":19,\"duplicate\":1}";
        let (answer, _) = Answer::parse(bytes).unwrap().unwrap();
        assert_eq!(answer.stored_and_duplicate(), (19, 1));
    }

    #[test]
    fn waits_for_the_whole_answer() {
        assert_eq!(Answer::parse(b"HTTP/1.1 204 No Content\r\nServer: x\r\n").unwrap(), None);
        assert_eq!(Answer::parse(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{").unwrap(), None);
        let (answer, total) = Answer::parse(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap().unwrap();
        assert_eq!((answer.status, answer.body, total), (204, &b""[..], 27));
        assert!(Answer::parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    #[test]
    fn sends_and_reads_in_pieces() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; 1 << 20];
            stream.read_exact(&mut request).unwrap();
            for piece in ["HTTP/1.1 200 OK\r\nconte", "nt-length: 4\r\n\r\nab", "cd"] {
                stream.write_all(piece.as_bytes()).unwrap();
                std::thread::yield_now();
            }
            request
        });
        let request: Vec<u8> = (0..1 << 20).map(|i| i as u8).collect();
        let mut connection = Connection::open(&address).unwrap();
        connection.stream.set_nonblocking(true).unwrap();
        let mut all = connection.begin(&request).unwrap();
        loop {
            if !all {
                all = connection.send(&request).unwrap();
            }
            if connection.read().unwrap() && connection.answer().unwrap().is_some() {
                break;
            }
            std::thread::yield_now();
        }
        assert_eq!(connection.answer().unwrap().unwrap().body, b"abcd");
        assert_eq!(server.join().unwrap(), request);
    }
}
