package recording

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
)

// pseudonyms are the words that stand for others, numbered in the order in which they were met. Their number says nothing of the original.
type pseudonyms struct {
	words map[string]string // by the kind and the original in lower case
	count map[string]int    // by kind
	names []knownName       // what free text is searched for
}

type knownName struct {
	lower string
	whole *regexp.Regexp // where it stands by itself
	word  string
}

func newPseudonyms() *pseudonyms {
	return &pseudonyms{words: map[string]string{}, count: map[string]int{}}
}

// of is the word for an original, made by its pattern when it is new.
func (p *pseudonyms) of(kind, original, pattern string) string {
	key := kind + " " + strings.ToLower(original)
	if word, known := p.words[key]; known {
		return word
	}
	p.count[kind]++
	word := fmt.Sprintf(pattern, p.count[kind])
	p.words[key] = word
	return word
}

var (
	guid       = regexp.MustCompile(`[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}`)
	wholeGUID  = regexp.MustCompile(`^\{?` + guid.String() + `\}?$`)
	objectPath = regexp.MustCompile(`^\\\\([^\\]+)\\(root\\[^:]+:.*)$`)
	keyValue   = regexp.MustCompile(`="((?:[^"\\]|\\.)*)"`)
	literal    = regexp.MustCompile(`'((?:[^'\\]|\\.)*)'`)
	drivePath  = regexp.MustCompile(`[A-Za-z]:\\[^"'<>|*?\r\n]*|\\\\[^\\"'<>|*?\s]+\\[^"'<>|*?\r\n]+`)
	macAddress = regexp.MustCompile(`^[0-9A-Fa-f]{12}$`)
	addressish = regexp.MustCompile(`[0-9A-Fa-f:.]*[.:][0-9A-Fa-f:.]+`)
	// ownName is the mark of our checkpoints, which has to stay what it is.
	ownName = regexp.MustCompile(`^hyperkeep `)
)

// name is the word for a value that is a name as a whole.
func (p *pseudonyms) name(text string) string {
	switch {
	case text == "", ownName.MatchString(text), wholeGUID.MatchString(text):
		return p.ids(text)
	}
	lower := strings.ToLower(text)
	_, known := p.words["name "+lower]
	word := p.of("name", text, "name%d")
	if !known && len(text) > 2 {
		p.names = append(p.names, knownName{lower, regexp.MustCompile(`(?i)\b` + regexp.QuoteMeta(text) + `\b`), word})
	}
	return word
}

// text rewrites a value that may have names in it.
func (p *pseudonyms) text(text string) string {
	if m := objectPath.FindStringSubmatch(text); m != nil {
		rest := keyValue.ReplaceAllStringFunc(m[2], func(pair string) string {
			return `="` + escape(p.word(unescape(pair[2:len(pair)-1], `"`)), `"`) + `"`
		})
		return `\\` + strings.ToUpper(p.name(m[1])) + `\` + rest
	}
	if strings.HasPrefix(text, "SELECT ") {
		return literal.ReplaceAllStringFunc(text, func(quoted string) string {
			return "'" + escape(p.word(unescape(quoted[1:len(quoted)-1], "'")), "'") + "'"
		})
	}
	return p.word(text)
}

// word rewrites a text that is neither a path of an object nor a query: a name that was met before, or what looks like a path, an id or an address.
func (p *pseudonyms) word(text string) string {
	if known, met := p.words["name "+strings.ToLower(text)]; met {
		return known
	}
	if macAddress.MatchString(text) {
		return p.of("mac", text, "00155D%06X")
	}
	text = drivePath.ReplaceAllStringFunc(text, p.path)
	text = p.ids(text)
	if strings.Contains(text, " ") && !strings.HasPrefix(text, "Microsoft:") {
		lower := strings.ToLower(text)
		for _, name := range p.names {
			if strings.Contains(lower, name.lower) {
				text = name.whole.ReplaceAllLiteralString(text, name.word)
			}
		}
	}
	return text
}

// ids rewrites ids and IP addresses.
func (p *pseudonyms) ids(text string) string {
	text = guid.ReplaceAllStringFunc(text, func(id string) string {
		return p.of("id", id, "00000000-0000-4000-8000-%012d")
	})
	return addressish.ReplaceAllStringFunc(text, func(found string) string {
		address, err := netip.ParseAddr(strings.TrimRight(found, ".:"))
		switch {
		case err != nil:
			return found
		case address.Is4():
			return p.of("ipv4", address.String(), "192.0.2.%d")
		}
		return p.of("ipv6", address.String(), "2001:db8::%x")
	})
}

// wellKnown are the parts of paths that every host has, in lower case.
var wellKnown = map[string]bool{
	"windows": true, "system32": true, "programdata": true, "program files": true, "microsoft": true, "hyper-v": true, "users": true, "public": true,
	"documents": true, "virtual machines": true, "snapshots": true, "virtual hard disks": true, "clusterstorage": true, "vms": true, ".hyperv": true,
	"planned virtual machines": true, "undolog configuration": true,
}

func (p *pseudonyms) path(path string) string {
	parts := strings.Split(path, `\`)
	for i, part := range parts {
		if i > 0 || !strings.HasSuffix(part, ":") {
			parts[i] = p.component(part)
		}
	}
	return strings.Join(parts, `\`)
}

var (
	ending = regexp.MustCompile(`(\.[A-Za-z]{2,6}){1,2}$`)
	// branch is what Hyper-V adds to the name of a checkpoint's file.
	branch = regexp.MustCompile(`_` + guid.String() + `$`)
	volume = regexp.MustCompile(`(?i)^volume\d+$`)
)

// component rewrites the name of one file or folder. Its ending stays, and so does that a file is a checkpoint's of another.
func (p *pseudonyms) component(name string) string {
	if name == "" || wellKnown[strings.ToLower(name)] || volume.MatchString(name) {
		return name
	}
	end := ending.FindString(name)
	stem := strings.TrimSuffix(name, end)
	tail := branch.FindString(stem)
	stem = strings.TrimSuffix(stem, tail)
	switch {
	case stem == "":
	case wholeGUID.MatchString(stem):
		stem = p.ids(stem)
	default:
		if known, met := p.words["name "+strings.ToLower(stem)]; met {
			stem = known
		} else {
			stem = p.of("part", stem, "part%d")
		}
	}
	return stem + p.ids(tail) + end
}

func escape(text, quote string) string {
	return strings.NewReplacer(`\`, `\\`, quote, `\`+quote).Replace(text)
}

func unescape(text, quote string) string {
	return strings.NewReplacer(`\\`, `\`, `\`+quote, quote).Replace(text)
}
