package service

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/windows"
)

// What is read from a real file system differs between Windows and Wine; what is made of it does not.
func TestAccessThatOthersHaveIsSeen(t *testing.T) {
	cases := map[string]struct {
		sddl string
		says string // empty when it is private
	}{
		"SYSTEM and Administrators":              {"O:BAD:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)", ""},
		"inherited rights of both":               {"O:SYD:AI(A;ID;FA;;;SY)(A;ID;FA;;;BA)", ""},
		"whoever makes a file":                   {"O:BAD:P(A;;FA;;;SY)(A;OICIIO;FA;;;CO)", ""},
		"others may see that it is there":        {"O:BAD:P(A;;FA;;;BA)(A;;0x120080;;;WD)", ""},
		"others are denied":                      {"O:BAD:P(D;;FA;;;BU)(A;;FA;;;BA)", ""},
		"Users may read":                         {"O:BAD:P(A;;FA;;;BA)(A;;FR;;;BU)", "Users"},
		"Users may read what comes to lie in it": {"O:BAD:P(A;;FA;;;BA)(A;OICIIO;FR;;;BU)", "Users"},
		"everybody may read":                     {"O:BAD:P(A;;FA;;;BA)(A;;FR;;;WD)", ErrNotPrivate.Error()},
		"those who logged in may write":          {"O:BAD:P(A;;FA;;;BA)(A;;FW;;;AU)", ErrNotPrivate.Error()},
		"others may change who may":              {"O:BAD:P(A;;FA;;;BA)(A;;WD;;;BU)", "Users"},
		"somebody else's":                        {"O:BUD:P(A;;FA;;;BA)", "belongs to"},
		"no list at all":                         {"O:BA", "everybody may do everything"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			descriptor, err := windows.SecurityDescriptorFromString(c.sddl)
			if err != nil {
				t.Fatalf("%s: %v", c.sddl, err)
			}
			err = errors.Join(checkOwner(descriptor), checkAccess(descriptor))
			if c.says == "" {
				NewWithT(t).Expect(err).NotTo(HaveOccurred())
				return
			}
			NewWithT(t).Expect(err).To(And(MatchError(ErrNotPrivate), MatchError(ContainSubstring(c.says))))
		})
	}
}

func TestMakePrivate(t *testing.T) {
	g := NewWithT(t)
	// Not t.TempDir: Wine 8 lacks the call with which os.RemoveAll clears it up. The test's prefix goes as a whole.
	temporary, err := os.MkdirTemp("", "service-")
	g.Expect(err).NotTo(HaveOccurred())
	dir := filepath.Join(temporary, "parent", "Hyperkeep")
	g.Expect(MakePrivate(dir)).To(Succeed())
	g.Expect(MakePrivate(dir)).To(Succeed(), "a folder that is private stays")
	g.Expect(checkFile(filepath.Join(dir, "nothing"))).To(MatchError(fs.ErrNotExist))
	g.Expect(os.WriteFile(filepath.Join(dir, "token"), []byte("x"), 0o600)).To(Succeed())
}
