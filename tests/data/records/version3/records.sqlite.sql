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
INSERT INTO "events" VALUES(1,'01a1ee565e0070008000000000000000',1795000000000,'block','gw1','192.0.2.7',0,'','',0,'','one',0,'','','','REF0-0000-0000','','','');
INSERT INTO "events" VALUES(2,'01a1ee5661e870008000000000000001',1795000001000,'block','gw2','192.0.2.7',0,'','',0,'','one',0,'','','','REF0-0000-0001','','','');
CREATE TABLE holds (
	reference VARCHAR(100) NOT NULL, 
	until BIGINT NOT NULL, 
	node VARCHAR(255) NOT NULL, 
	PRIMARY KEY (reference, node)
);
INSERT INTO "holds" VALUES('REF0-0000-0000',1829560000000,'gw1');
CREATE TABLE nodes (
	name VARCHAR(255) NOT NULL, 
	identity VARCHAR(32) NOT NULL, 
	days TEXT NOT NULL, 
	seen BIGINT NOT NULL, 
	PRIMARY KEY (name)
);
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
INSERT INTO "urlward_versions" VALUES('events',3);
CREATE INDEX events_time ON events (time, id);
CREATE INDEX events_category_time ON events (category, time);
CREATE INDEX events_reference ON events (reference);
CREATE INDEX events_list_time ON events (list, time);
CREATE INDEX events_kind_time ON events (kind, time);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('events',2);
COMMIT;
