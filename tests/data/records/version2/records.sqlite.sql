BEGIN TRANSACTION;
CREATE TABLE events (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	id VARCHAR(32) NOT NULL, 
	time BIGINT NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	node TEXT NOT NULL, 
	client TEXT NOT NULL, 
	client_port INTEGER NOT NULL, 
	protocol TEXT NOT NULL, 
	destination TEXT NOT NULL, 
	destination_port INTEGER NOT NULL, 
	stage TEXT NOT NULL, 
	list TEXT NOT NULL, 
	serial BIGINT NOT NULL, 
	entry TEXT NOT NULL, 
	category TEXT NOT NULL, 
	verdict TEXT NOT NULL, 
	reference TEXT NOT NULL, 
	digest VARCHAR(32) NOT NULL, 
	"group" TEXT NOT NULL, 
	detail TEXT NOT NULL, 
	UNIQUE (id)
);
INSERT INTO "events" VALUES(1,'01a1ee565e00700089abcdef01234567',1795000000000,'block','gw1','192.0.2.7',40213,'tls','198.51.100.1',443,'peek','one',7,'e-1','phishing','block','7Q4M-2XKD-93FH','0123456789abcdef0123456789abcdef','staff','{"a":1}');
INSERT INTO "events" VALUES(2,'01a1ee5661e8700089abcdef01234567',1795000001000,'start','gw1','',0,'','',0,'','',0,'','','','','','','');
INSERT INTO "events" VALUES(3,'01a1ee5665d0700089abcdef01234567',1795000002000,'block','gw2','192.0.2.8',0,'','',0,'','one',0,'','','','7Q4M-2XKD-93FJ','','','');
CREATE TABLE holds (reference VARCHAR(100) NOT NULL, until BIGINT NOT NULL, node VARCHAR(255) NOT NULL, PRIMARY KEY (reference, node));
INSERT INTO "holds" VALUES('7Q4M-2XKD-93FH',1829560000000,'gw1');
CREATE TABLE retention (node VARCHAR(255) NOT NULL, days TEXT NOT NULL, PRIMARY KEY (node));
INSERT INTO "retention" VALUES('gw1','{"block": 30}');
INSERT INTO "retention" VALUES('gw2','{"block": 5}');
CREATE TABLE urlward_unwiped (
	part VARCHAR(64) NOT NULL, 
	count BIGINT NOT NULL, 
	PRIMARY KEY (part)
);
CREATE TABLE urlward_versions (
	part VARCHAR(64) NOT NULL, 
	version INTEGER NOT NULL, 
	PRIMARY KEY (part)
);
INSERT INTO "urlward_versions" VALUES('events',2);
CREATE INDEX events_kind_time ON events (kind, time);
CREATE INDEX events_list_time ON events (list, time);
CREATE INDEX events_category_time ON events (category, time);
CREATE INDEX events_time ON events (time, id);
CREATE INDEX events_reference ON events (reference);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('events',3);
COMMIT;
