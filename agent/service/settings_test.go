package service

import (
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

func TestSettingsAreReadAsTheyWereWritten(t *testing.T) {
	g := NewWithT(t)
	folder := t.TempDir()
	written := DefaultSettings(folder, "hv01")
	written.LogLevel = slog.LevelDebug
	g.Expect(written.Save()).To(Succeed())
	read, err := Load(folder)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(read).To(Equal(written))
	g.Expect(read.KubeconfigPath()).To(Equal(filepath.Join(folder, "kubeconfig")))
	g.Expect(read.StatePath()).To(Equal(filepath.Join(folder, "state")))
	g.Expect(read.TokenPath()).To(Equal(filepath.Join(folder, "token")))

	elsewhere := filepath.Join(t.TempDir(), "kubeconfig")
	read.Kubeconfig = elsewhere
	g.Expect(read.KubeconfigPath()).To(Equal(elsewhere))
}

func TestSettingsThatMakeNoSense(t *testing.T) {
	cases := map[string]struct{ content, says string }{
		"a word that does not exist":  {"host: hv01\nhots: hv02\n", "hots"},
		"no host":                     {"logLevel: debug\n", "host is missing"},
		"a level that does not exist": {"host: hv01\nlogLevel: loud\n", "loud"},
		"no YAML":                     {"host: [", "config.yaml"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			if err := os.WriteFile(filepath.Join(folder, "config.yaml"), []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Load(folder)
			NewWithT(t).Expect(err).To(MatchError(ContainSubstring(c.says)))
		})
	}
	_, err := Load(t.TempDir())
	NewWithT(t).Expect(err).To(And(MatchError(fs.ErrNotExist), MatchError(ContainSubstring("run agent.exe enroll first"))))
}

func TestLogGoesIntoTheFolder(t *testing.T) {
	g := NewWithT(t)
	settings := DefaultSettings(t.TempDir(), "hv01")
	settings.LogLevel = slog.LevelWarn
	logger, file, err := settings.OpenLog()
	g.Expect(err).NotTo(HaveOccurred())
	logger.Info("chatter")
	logger.Error("trouble")
	g.Expect(file.Close()).To(Succeed())
	content, err := os.ReadFile(settings.LogPath("agent.log"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(content)).To(And(ContainSubstring("trouble"), Not(ContainSubstring("chatter"))))
	g.Expect(strings.Count(string(content), "\n")).To(Equal(1))
}
