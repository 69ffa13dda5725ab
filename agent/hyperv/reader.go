package hyperv

import (
	"regexp"
	"strings"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// reader reads several properties of one instance and keeps the first error, so that reading an object is a list of fields.
type reader struct {
	wmi.Instance
	err error
}

func (r *reader) keep(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *reader) text(name string) string {
	v, err := r.String(name)
	r.keep(err)
	return v
}

func (r *reader) number(name string) int64 {
	v, err := r.Int(name)
	r.keep(err)
	return v
}

func (r *reader) flag(name string) bool {
	v, err := r.Bool(name)
	r.keep(err)
	return v
}

func (r *reader) texts(name string) []string {
	v, err := r.Strings(name)
	r.keep(err)
	return v
}

func (r *reader) numbers(name string) []int64 {
	v, err := r.Ints(name)
	r.keep(err)
	return v
}

func (r *reader) time(name string) time.Time {
	v, err := wmi.ParseTime(r.text(name))
	r.keep(err)
	return v
}

// has tells whether the host's class has a property that came with a later version of Windows.
func (r *reader) has(name string) bool {
	_, known := r.Properties[name]
	return known
}

// hostResource is the file, device or switch behind an allocation, "" when there is none. More than one is not seen.
func (r *reader) hostResource() string {
	if all := r.texts("HostResource"); len(all) > 0 {
		return all[0]
	}
	return ""
}

var keyInPath = regexp.MustCompile(`[.,](\w+)="((?:[^"\\]|\\.)*)"`)

// referenced is the value of one key in an object path, in upper case, "" when the path lacks it. References are compared by it, because the
// path in front of the keys holds the host's name and is written in more than one way.
func referenced(path, key string) string {
	for _, match := range keyInPath.FindAllStringSubmatch(path, -1) {
		if match[1] == key {
			return strings.ToUpper(unescaper.Replace(match[2]))
		}
	}
	return ""
}

var unescaper = strings.NewReplacer(`\\`, `\`, `\"`, `"`)
