package recording

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Redact copies a recording and replaces what tells whose host it is: names of machines, hosts, switches and people, folders and files,
// ids, serial numbers, IP and MAC addresses. The same word is replaced by the same one everywhere, in questions and answers, so the copy replays as the
// original does. What a host says in free text is searched for the names that were found; still, look at the copy before you hand it on.
func Redact(r io.Reader, w io.Writer) error {
	var entries []entry
	header, err := readEntries(r, func(e entry) error {
		entries = append(entries, e)
		return nil
	})
	if err != nil {
		return fmt.Errorf("redact: %w", err)
	}
	words := newPseudonyms()
	for _, e := range entries {
		words.learn(e)
	}
	header.Redacted = true
	out := json.NewEncoder(w)
	if err := out.Encode(header); err != nil {
		return fmt.Errorf("redact: %w", err)
	}
	for _, e := range entries {
		if err := words.replace(&e); err != nil {
			return fmt.Errorf("redact: %w", err)
		}
		if err := out.Encode(e); err != nil {
			return fmt.Errorf("redact: %w", err)
		}
	}
	return nil
}

// naming are the properties whose whole value is a name or a number that tells whose it is, in lower case.
var naming = map[string]bool{
	"elementname": true, "csname": true, "dnshostname": true, "domain": true, "workgroup": true, "username": true, "registereduser": true,
	"organization": true, "volumename": true, "computername": true, "notes": true, "systemname": true, "primaryownername": true,
	"primaryownercontact": true, "lastknownswitchname": true, "testreplicaswitchname": true, "ownernode": true, "serialnumber": true,
	"biosserialnumber": true, "chassisserialnumber": true, "chassisassettag": true, "baseboardserialnumber": true, "volumeserialnumber": true,
	"account": true,
}

// namingIn are properties that are a name in some classes only, by the prefix of the class.
var namingIn = map[string]string{"name": "MSCluster_", "caption": "MSCluster_", "ownergroup": "MSCluster_"}

// isName tells whether a property's value is a name. What every Windows has by the same name is none.
func isName(class, property string) bool {
	property = strings.ToLower(property)
	prefix, sometimes := namingIn[property]
	switch {
	case sometimes && strings.HasPrefix(class, prefix):
		return true
	case property == "name":
		return class == "Win32_ComputerSystem" || class == "Msvm_ComputerSystem"
	case property == "elementname" && (strings.HasSuffix(class, "Service") || strings.HasSuffix(class, "Job")):
		return false
	}
	return naming[property]
}

// learn collects the names in one answer.
func (p *pseudonyms) learn(e entry) {
	value, err := decode(e.Out)
	if err != nil {
		return // replace will say so
	}
	walk(value, "", "", func(class, property, text string) string {
		if isName(class, property) {
			p.name(text)
		}
		return text
	})
}

// replace rewrites one call and its answer.
func (p *pseudonyms) replace(e *entry) error {
	if e.Call == callDescribe {
		return nil // the host's words, not its owner's
	}
	fileNames := strings.HasPrefix(e.Call, "files.")
	rewrite := func(class, property, text string) string {
		switch {
		case isName(class, property):
			return p.name(text)
		case fileNames && property == "name":
			return p.component(text)
		}
		return p.text(text)
	}
	for _, part := range []*json.RawMessage{&e.In, &e.Out} {
		value, err := decode(*part)
		if err != nil {
			return err
		}
		if value == nil {
			continue
		}
		if *part, err = json.Marshal(walk(value, "", "", rewrite)); err != nil {
			return err
		}
	}
	if e.Error != nil {
		e.Error.Message = p.text(e.Error.Message)
	}
	return nil
}

// walk rebuilds a JSON value with each text rewritten. It tells of each the class of the instance that it is in, and its property.
func walk(value any, class, property string, rewrite func(class, property, text string) string) any {
	switch v := value.(type) {
	case string:
		return rewrite(class, property, v)
	case []any:
		for i := range v {
			v[i] = walk(v[i], class, property, rewrite)
		}
	case map[string]any:
		if own, ok := v["class"].(string); ok {
			class = own
		}
		for name, inner := range v {
			switch name {
			case "class", "method", "assocClass", "resultClass", "namespace":
				continue
			case "strings":
				v[name] = walk(inner, class, property, rewrite) // an array keeps its property's name
			default:
				v[name] = walk(inner, class, name, rewrite)
			}
		}
	}
	return value
}
