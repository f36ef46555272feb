//! A real Redis of this test's own, and as much of its protocol as the tests speak.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct Redis {
    child: Child,
    pub port: u16,
    _dir: tempfile::TempDir,
}

impl Redis {
    pub fn start(options: &[&str]) -> Redis {
        for _ in 0..5 {
            // A cluster's bus listens 10,000 ports higher.
            let port = loop {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let port = listener.local_addr().unwrap().port();
                if port < 55_000 {
                    break port;
                }
            };
            let dir = tempfile::tempdir().unwrap();
            let child = Command::new("redis-server")
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
                .args(["--dir", dir.path().to_str().unwrap()])
                .args(options)
                .stdout(Stdio::null())
                .spawn()
                .expect("redis-server of Debian's package redis-server");
            let mut redis = Redis {
                child,
                port,
                _dir: dir,
            };
            let end = Instant::now() + Duration::from_secs(10);
            while Instant::now() < end && redis.child.try_wait().unwrap().is_none() {
                let listens = TcpStream::connect(("127.0.0.1", port)).is_ok();
                if listens && redis.client().call(&["PING"]) == Value::Text("PONG".into()) {
                    return redis;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        panic!("redis-server does not start");
    }

    pub fn client(&self) -> Client {
        Client::connect(self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Three masters that share the slots.
pub fn cluster() -> Vec<Redis> {
    let nodes: Vec<Redis> = (0..3)
        .map(|_| Redis::start(&["--cluster-enabled", "yes"]))
        .collect();
    let slots = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
    for (node, (from, to)) in nodes.iter().zip(slots) {
        node.client().call(&["CLUSTER", "ADDSLOTSRANGE", from, to]);
        node.client()
            .call(&["CLUSTER", "MEET", "127.0.0.1", &nodes[0].port.to_string()]);
    }
    let end = Instant::now() + Duration::from_secs(30);
    while !nodes.iter().all(|n| {
        n.client()
            .call(&["CLUSTER", "INFO"])
            .text()
            .contains("cluster_state:ok")
    }) {
        assert!(Instant::now() < end, "the cluster does not form");
        std::thread::sleep(Duration::from_millis(50));
    }
    nodes
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Number(i64),
    Text(String),
    Error(String),
    Nil,
    List(Vec<Value>),
}

impl Value {
    pub fn text(&self) -> &str {
        match self {
            Value::Text(text) => text,
            other => panic!("{other:?}"),
        }
    }

    pub fn list(&self) -> &[Value] {
        match self {
            Value::List(list) => list,
            other => panic!("{other:?}"),
        }
    }

    pub fn numbers(&self) -> Vec<i64> {
        let number = |v: &Value| match v {
            Value::Number(n) => *n,
            other => panic!("{other:?}"),
        };
        self.list().iter().map(number).collect()
    }
}

pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(port: u16) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Client {
            stream: BufReader::new(stream),
        }
    }

    pub fn call(&mut self, words: &[&str]) -> Value {
        let mut out = format!("*{}\r\n", words.len());
        for word in words {
            out.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.stream.get_mut().write_all(out.as_bytes()).unwrap();
        let answer = self.read();
        match &answer {
            // Another master has this slot.
            Value::Error(e) if e.starts_with("MOVED ") => {
                let port = e.rsplit(':').next().unwrap().parse().unwrap();
                Client::connect(port).call(words)
            }
            _ => answer,
        }
    }

    pub fn read(&mut self) -> Value {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        let rest = line[1..].trim_end();
        match &line[..1] {
            ":" => Value::Number(rest.parse().unwrap()),
            "+" => Value::Text(rest.into()),
            "-" => Value::Error(rest.into()),
            "$" if rest == "-1" => Value::Nil,
            "$" => {
                let mut text = vec![0; rest.parse::<usize>().unwrap() + 2];
                self.stream.read_exact(&mut text).unwrap();
                text.truncate(text.len() - 2);
                Value::Text(String::from_utf8(text).unwrap())
            }
            "*" => Value::List((0..rest.parse::<usize>().unwrap()).map(|_| self.read()).collect()),
            _ => panic!("{line}"),
        }
    }
}
