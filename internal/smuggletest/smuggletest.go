// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package smuggletest has the requests by which others have shown that two programs disagree about where a request
// ends, or about who sent it, and says what an edge in front of any server may make of each.
//
//	Case.In ─▶ edge ─▶ server: exactly Case.Seen, read by anybody
//	              └──▶ client: an answer to each, then Case.Status and the end of the connection
//
// The rows come from the published tables of those who look for such faults; each names its source:
//
//   - http-request-smuggler, the scanner of PortSwigger ("HTTP Desync Attacks", 2019, and what followed)
//   - smuggler, by defparam
//   - smugglex, by hahwul
//   - HTTP Garden, the list of faults that it found in servers and proxies
//   - Funky Chunks, by w4ke: line ends of chunked bodies
//   - Http11Probe, by MDA2AV: what a server must refuse
package smuggletest

// Case is what a client sends in one go.
type Case struct {
	Source, Name string

	In     string
	Seen   []string // the requests that reach a server, each as "METHOD target body"
	Status int      // of the answer that refuses what comes after them; 0 if nothing is refused
	Body   bool     // what is refused is in a body, so that a server may get the beginning of one request more
}

// Smuggled is what the bodies of most cases hold: whoever ends the body too early takes it for a request.
const Smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

// Cases returns all of them.
func Cases() (all []Case) {
	for _, c := range [][]Case{codings(), bytesAround(), lengths(), chunks(), heads()} {
		all = append(all, c...)
	}
	return all
}

// meaning is what the lines of a coding are.
type meaning uint8

const (
	refused meaning = iota
	chunked         // Transfer-Encoding: chunked
	other           // fields of another name or kind, which go on
)

// coding is one way to write Transfer-Encoding: chunked, or nearly so.
type coding struct {
	name, lines string
	meaning     meaning
}

// cases sends the lines with a Content-Length that ends the body elsewhere, before and after it, and without one.
func (c coding) cases(source string) []Case {
	const (
		line = "POST / HTTP/1.1\r\nHost: a\r\n"
		body = "0\r\n\r\n"
	)
	both := Case{Source: source, Name: c.name + ", CL.TE", In: line + "Content-Length: 5\r\n" + c.lines + "\r\n\r\n" + body + Smuggled, Status: 400}
	swapped := Case{Source: source, Name: c.name + ", TE.CL", In: line + c.lines + "\r\nContent-Length: 5\r\n\r\n" + body + Smuggled, Status: 400}
	alone := Case{Source: source, Name: c.name, In: line + c.lines + "\r\n\r\n" + body + Smuggled, Status: 400}
	switch c.meaning {
	case chunked:
		alone.Status, alone.Seen = 0, []string{"POST / ", "GET /smuggled "}
	case other:
		both.Status, both.Seen = 0, []string{"POST / " + body, "GET /smuggled "}
		swapped.Status, swapped.Seen = 0, both.Seen
		alone.Seen = []string{"POST / "} // after which "0" is no request
	}
	return []Case{both, swapped, alone}
}

// codings are the ways to hide Transfer-Encoding from one of two readers.
func codings() (all []Case) {
	for _, table := range []struct {
		source string
		list   []coding
	}{
		{"http-request-smuggler", portSwigger()}, {"smuggler", defparam()}, {"smugglex", smugglex()}, {"HTTP Garden", garden()},
	} {
		for _, c := range table.list {
			all = append(all, c.cases(table.source)...)
		}
	}
	return all
}

func portSwigger() []coding {
	list := []coding{
		{"vanilla", "Transfer-Encoding: chunked", chunked},
		{"underjoin1", "Transfer_Encoding: chunked", refused},
		{"spacejoin1", "Transfer Encoding: chunked", refused},
		{"space1", "Transfer-Encoding : chunked", refused},
		{"nameprefix1", "Foo: bar\r\n Transfer-Encoding: chunked", refused},
		{"nameprefix2", "Foo: bar\r\n\tTransfer-Encoding: chunked", refused},
		{"valueprefix1", "Transfer-Encoding:  chunked", refused},
		{"nospace1", "Transfer-Encoding:chunked", chunked},
		{"linewrapped1", "Transfer-Encoding:\n chunked", refused},
		{"doublewrapped", "Transfer-Encoding:\r\n \r\n chunked", refused},
		{"gareth1", "Transfer-Encoding\n : chunked", refused},
		{"badsetupCR", "Foo: bar\rTransfer-Encoding: chunked", refused},
		{"badsetupLF", "Foo: bar\nTransfer-Encoding: chunked", refused},
		{"vertwrap", "Transfer-Encoding: \n\vchunked", refused},
		{"tabwrap", "Transfer-Encoding: \r\n\tchunked", refused},
		{"multiCase", "tRANSFER-ENCODING: chunked", chunked},
		{"UPPERCASE", "TRANSFER-ENCODING: chunked", chunked},
		{"0dwrap", "Foo: bar\r\n\rTransfer-Encoding: chunked", refused},
		{"0dspam", "Tra\rnsfer-Encoding: chunked", refused},
		{"connection", "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked", refused},
		{"spjunk", "Transfer-Encoding x: chunked", refused},
		{"backslash", `Transfer\Encoding: chunked`, refused},
		{"spaceFF", "Transfer-Encoding:\xffchunked", refused},
		{"unispace", "Transfer-Encoding:\xa0chunked", refused},
		{"nel", "Transfer-Encoding:\x85chunked", refused},
		{"shy", "Transfer\xadEncoding: chunked", refused},
		{"commaCow", "Transfer-Encoding: chunked, identity", refused},
		{"cowComma", "Transfer-Encoding: identity, chunked", refused},
		{"contentEnc", "Content-Encoding: chunked", other},
		{"quoted", `Transfer-Encoding: "chunked"`, refused},
		{"aposed", "Transfer-Encoding: 'chunked'", refused},
		{"dualchunk", "Transfer-Encoding: chunked\r\nTransfer-encoding: identity", refused},
		{"revdualchunk", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", refused},
		{"lazygrep", "Transfer-Encoding: chunk", refused},
		{"0dsuffix", "Transfer-Encoding: chunked\r", refused},
		{"tabsuffix", "Transfer-Encoding: chunked\t", refused},
		{"bodysplit", "Foo: bar\n\nTransfer-Encoding: chunked", refused},
		{"nested", "Transfer-Encoding: identity, chunked, identity", refused},
		{"encode", "Transfer-%45ncoding: chunked", other}, // a token, and nobody decodes names
		{"qencode", "Transfer-Encoding: =?iso-8859-1?B?Y2h1bmtlZA==?=", refused},
		{"accentTE", "Transf\x82r-Encoding: chunked", refused},
		{"accentCH", "Transfer-Encoding: ch\x96nked", refused},
	}
	for _, c := range []string{"\x00", "\t", "\v", "\f", "\r", "\x7f"} {
		list = append(list,
			coding{"spacefix1 " + c, "Transfer-Encoding:" + c + "chunked", refused},
			coding{"prefix1 " + c, "Transfer-Encoding: " + c + "chunked", refused},
			coding{"suffix1 " + c, "Transfer-Encoding: chunked" + c, refused})
	}
	return list
}

func defparam() []coding {
	return []coding{
		{"nameprefix1", " Transfer-Encoding: chunked", refused},
		{"tabprefix1", "Transfer-Encoding:\tchunked", refused},
		{"tabprefix2", "Transfer-Encoding\t:\tchunked", refused},
		{"smashed", "Transfer Encoding:chunked", refused},
		{"vertprefix1", "Transfer-Encoding:\vchunked", refused},
		{"commaCow", "Transfer-Encoding: chunked, cow", refused},
		{"cowComma", "Transfer-Encoding: cow, chunked", refused},
		{"sarcasm", "TrAnSFer-EnCODinG: cHuNkeD", chunked},
		{"yelling", "TRANSFER-ENCODING: CHUNKED", chunked},
		{"revdualchunk", "Transfer-Encoding: cow\r\nTransfer-Encoding: chunked", refused},
		{"0dspam", "Transfer\r-Encoding: chunked", refused},
		{"nested", "Transfer-Encoding: cow chunked bar", refused},
		{"x-rout", "X:X\rTransfer-Encoding: chunked", refused},
		{"x-nout", "X:X\nTransfer-Encoding: chunked", refused},
	}
}

func smugglex() []coding {
	return []coding{
		{"two spaces before the colon", "Transfer-Encoding  : chunked", refused},
		{"trailing space", "Transfer-Encoding: chunked ", refused},
		{"folded", "Transfer-Encoding:\r\n chunked", refused},
		{"folded before the colon", "Transfer-Encoding\r\n : chunked", refused},
		{"vertical tab on a line of its own", "Transfer-Encoding: chunked\n\v", refused},
		{"NUL for the hyphen", "Transfer\x00Encoding: chunked", refused},
		{"no space after the comma", "Transfer-Encoding: chunked,identity", refused},
		{"spaces around the comma", "Transfer-Encoding: chunked , identity", refused},
		{"CR after the hyphen", "Transfer-\rEncoding: chunked", refused},
		{"CR after the colon", "Transfer-Encoding:\r chunked", refused},
		{"junk in the value", "Transfer-Encoding: x chunked", refused},
		{"escaped value", "Transfer-Encoding: %63hunked", refused},
		{"lower case", "transfer-encoding: chunked", chunked},
		{"after another field", "X: y\r\nTransfer-Encoding: chunked", chunked},
		{"replacement character in the name", "Transf\uFFFDr-Encoding: chunked", refused},
		{"replacement character in the value", "Transfer-Encoding: \uFFFDchunked", refused},
		{"two codings, x-custom", "Transfer-Encoding: chunked\r\nTransfer-Encoding: x-custom", refused},
		{"two codings, gzip", "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip, chunked", refused},
	}
}

func garden() []coding {
	return []coding{
		{"chunked twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", refused},
		{"no-break spaces around it", "Transfer-Encoding: \xa0chunked\xa0", refused},
		{"next lines around it", "Transfer-Encoding: \x85chunked\x85", refused},
		{"an empty element before it", "Transfer-Encoding: ,chunked", refused},
		{"an empty element after it", "Transfer-Encoding: chunked,", refused},
		{"unknown coding", "Transfer-Encoding: blegh", refused},
		{"name over two lines", "Transfer-\r\nEncoding: chunked", refused},
		{"CR ends the line before", "Visible: :/\rTransfer-Encoding: chunked", refused},
		{"high bytes around it", "Transfer-Encoding: \xffchunked\xff", refused},
		{"LF after nothing", "Useless:\n\nTransfer-Encoding: chunked", refused},
		{"lines without a colon", "Te\nst: test\r\nTransfer-Encoding: chunked", refused},
		{"no name and no value", ":\r\nTransfer-Encoding: chunked", refused},
		{"NUL hides a line", "a:b\r\nc\x00\r\nTransfer-Encoding: chunked", refused},
	}
}
