BEGIN TRANSACTION;
CREATE TABLE assignment_files (
	id INTEGER NOT NULL, 
	source INTEGER NOT NULL, 
	path TEXT NOT NULL, 
	"begin" TEXT NOT NULL, 
	begin_size INTEGER NOT NULL, 
	"offset" BIGINT NOT NULL, 
	"before" TEXT NOT NULL, 
	size BIGINT NOT NULL, 
	read BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (source, "begin", begin_size)
);
CREATE TABLE assignment_holds (
	reference TEXT NOT NULL, 
	address TEXT NOT NULL, 
	port INTEGER NOT NULL, 
	at BIGINT NOT NULL, 
	until BIGINT NOT NULL, 
	PRIMARY KEY (reference, address, port, at)
);
INSERT INTO "assignment_holds" VALUES('REF0-0000-0000','192.0.2.7',0,1795000010000,1829560000000);
CREATE TABLE assignment_lengths (
	length INTEGER NOT NULL, 
	PRIMARY KEY (length)
);
INSERT INTO "assignment_lengths" VALUES(56);
CREATE TABLE assignment_mappings (
	source INTEGER NOT NULL, 
	outside TEXT NOT NULL, 
	start BIGINT NOT NULL, 
	inside TEXT NOT NULL, 
	ports INTEGER NOT NULL, 
	first_port INTEGER NOT NULL, 
	"end" BIGINT NOT NULL, 
	PRIMARY KEY (source, outside, start)
);
CREATE TABLE assignment_sources (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	format TEXT NOT NULL, 
	path TEXT NOT NULL, 
	rows BIGINT NOT NULL, 
	skipped BIGINT NOT NULL, 
	read BIGINT NOT NULL, 
	node TEXT NOT NULL, 
	days INTEGER NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (name)
);
INSERT INTO "assignment_sources" VALUES(1,'test','csv','test.csv',0,0,1795000000000,'',180);
CREATE TABLE assignments (
	cell BIGINT NOT NULL, 
	place BIGINT NOT NULL, 
	digest BIGINT NOT NULL, 
	network TEXT NOT NULL, 
	first_port INTEGER NOT NULL, 
	last_port INTEGER NOT NULL, 
	start BIGINT NOT NULL, 
	"end" BIGINT NOT NULL, 
	ending SMALLINT NOT NULL, 
	subscriber TEXT NOT NULL, 
	session TEXT NOT NULL, 
	source INTEGER NOT NULL, 
	PRIMARY KEY (cell, place, digest)
)
 WITHOUT ROWID

;
INSERT INTO "assignments" VALUES(29916666,140660179463,7353368741922919244,'192.0.2.7',0,65535,1795000000000,1795000030000,0,'one-minute','',1);
INSERT INTO "assignments" VALUES(4398046627965,140660179463,8167635543233642719,'192.0.2.7',0,65535,1795000060000,1795007260000,0,'hours','',1);
INSERT INTO "assignments" VALUES(6597069773960,140660179463,-7993703411249068033,'192.0.2.7',0,65535,1795086400000,1795259200000,0,'days','',1);
INSERT INTO "assignments" VALUES(9895604650097,-1952455243647349299,-4610330716838436004,'2001:db8::/56',0,65535,1791544000000,1796728000000,0,'months','',1);
CREATE TABLE assignments_current (
	place BIGINT NOT NULL, 
	first_port INTEGER NOT NULL, 
	source INTEGER NOT NULL, 
	network TEXT NOT NULL, 
	last_port INTEGER NOT NULL, 
	start BIGINT NOT NULL, 
	"end" BIGINT NOT NULL, 
	seen BIGINT NOT NULL, 
	ending SMALLINT NOT NULL, 
	subscriber TEXT NOT NULL, 
	session TEXT NOT NULL, 
	file INTEGER NOT NULL, 
	read BIGINT NOT NULL, 
	PRIMARY KEY (place, first_port, source)
)
 WITHOUT ROWID

;
INSERT INTO "assignments_current" VALUES(140660179465,0,1,'192.0.2.9',65535,1795000000000,4611686018427387904,1795000000000,4,'fixed','',0,1795000000000);
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
INSERT INTO "urlward_versions" VALUES('assignments',3);
CREATE INDEX assignments_current_session ON assignments_current (source, session);
COMMIT;
