//! Pages, that make frames as the SDK does.

use firsthop_core::{
    Context, Event, ExtensionKind, Flags, FrameSigner, FrameWriter, Header, MacKey, PropertiesWriter, Region,
    RegionPublicKey, SourceId, TenantId, Unsigned, Value,
};
use firsthop_intake::{Receipt, Session};

use super::{Client, Tenant, now, random};

/// A page: a source that counts up, without a session at first.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) tenant: TenantId,
    pub(crate) key: String,
    pub(crate) source: SourceId,
    pub(crate) session: Option<Session>,
    pub(crate) next: u64,
    pub(crate) batch: u64,
    /// The region that its frames are for, and the key that they are sealed to.
    pub(crate) sealed_to: Option<(Region, RegionPublicKey)>,
}

impl Page {
    pub(crate) fn new(tenant: &Tenant) -> Self {
        Self {
            tenant: tenant.id,
            key: tenant.key.clone(),
            source: SourceId::v7(now(), random()),
            session: None,
            next: 0,
            batch: 0,
            sealed_to: None,
        }
    }

    /// The next frame, of so many events.
    pub(crate) fn frame(&mut self, events: u64) -> Vec<u8> {
        let frame = self.frame_at(self.next, events, "Product Viewed");
        self.next += events;
        self.batch += 1;
        frame
    }

    /// A first frame of one event, as part of a trace.
    pub(crate) fn traced(&self, traceparent: &str) -> Vec<u8> {
        let header = Header::new(self.tenant, self.source, now());
        let mut writer = FrameWriter::new(vec![0; 4096], &header).expect("room");
        writer.extension(ExtensionKind::Traceparent, traceparent.as_bytes()).expect("room");
        writer.extension(ExtensionKind::WriteKey, self.key.as_bytes()).expect("room");
        writer.event(&Event { name: "Product Viewed", ..Event::default() }).expect("room");
        writer.finish(&Unsigned).expect("finished").to_vec()
    }

    /// A frame of events from any number on.
    pub(crate) fn frame_at(&self, first: u64, events: u64, name: &str) -> Vec<u8> {
        let mut header = Header::new(self.tenant, self.source, now());
        (header.batch_seq, header.first_seq) = (self.batch, first);
        let mut buffer = vec![0; 512 * 1024];
        if let Some(session) = &self.session {
            header.flags = Flags::TRUST;
            (header.alg, header.key_id, header.epoch, header.region) =
                (session.alg, session.key_id, session.epoch, session.region);
        }
        if let Some((region, _)) = &self.sealed_to {
            header.region = *region;
        }
        let mut writer = FrameWriter::new(&mut buffer[..], &header).expect("room");
        match &self.session {
            Some(session) => writer.extension(ExtensionKind::Session, &session.grant.to_bytes()),
            None => writer.extension(ExtensionKind::WriteKey, self.key.as_bytes()),
        }
        .expect("room");
        if let Some((_, key)) = &self.sealed_to {
            writer.seal_to(key).expect("room");
        }
        let anonymous = self.source.to_string();
        let context =
            Context { anonymous_id: Some(&anonymous), url: Some("https://shop.example/p/1"), ..Context::default() };
        writer.context(&context).expect("room");
        for seq in first..first + events {
            let (mut shape, mut words) = ([0; 128], [0; 256]);
            let mut properties = PropertiesWriter::new(&mut shape[..], &mut words[..]);
            properties.put("n", Value::U64(seq)).expect("room");
            properties.put("sku", Value::Str("G-32")).expect("room");
            properties.put("price", Value::F64(18.99)).expect("room");
            let properties = properties.finish().expect("closed");
            writer.event(&Event { name, properties, ..Event::default() }).expect("room");
        }
        let key = self.session.as_ref().map(|session| MacKey::new(session.alg, &session.secret).expect("a MAC"));
        let signer: &dyn FrameSigner = match &key {
            Some(key) => key,
            None => &Unsigned,
        };
        match self.sealed_to {
            Some(_) => writer.finish_sealed(signer, &random()),
            None => writer.finish(signer),
        }
        .expect("finished")
        .to_vec()
    }

    /// Sends a first frame of one event, and takes the session that the answer brings.
    pub(crate) fn begin(&mut self, client: &mut Client) -> Receipt {
        let frame = self.frame(1);
        let receipt = client.frame(&frame).receipt();
        self.session = Some(receipt.session.clone().expect("a session"));
        receipt
    }
}
