package chart

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// allowed is every right that Hyperkeep's own processes have, each with its reason (T12). A wider role fails the test, so that whoever widens one says why.
var allowed = map[string]map[string]string{
	"ClusterRole/hyperkeep-manager": {
		"core/namespaces: create get list watch":                              "makes the namespaces of agents; sees whether those for virtual machines exist",
		"core/serviceaccounts: create":                                        "makes the accounts of agents; RBAC cannot limit the name of what is created, the fence limits the namespace",
		"core/serviceaccounts[agent]: delete get list watch":                  "revokes an agent's tokens by deleting its account",
		"coordination.k8s.io/leases[agent]: get list watch":                   "sees whether agents live",
		"events.k8s.io/events: create patch":                                  "tells people what happened, on their own objects",
		"hyperkeep.io/agenttasks: create delete get list patch watch":         "delegates to agents, cancels, and clears up after them",
		"hyperkeep.io/backupimages: create delete get list patch watch":       "records restore points, and drops the record of those that expired",
		"hyperkeep.io/backupimages/status: patch":                             "is the only writer of this status",
		"hyperkeep.io/backupjobs: create delete get list patch watch":         "makes the jobs of policies, and clears old ones away",
		"hyperkeep.io/backupjobs/status: patch":                               "is the only writer of this status",
		"hyperkeep.io/backuppolicies: get list watch":                         "carries policies out, and never changes what a person wrote",
		"hyperkeep.io/backuppolicies/status: patch":                           "is the only writer of this status",
		"hyperkeep.io/backuprepositories: get list patch watch":               "probes repositories; patch is for the finalizer that withdraws credentials",
		"hyperkeep.io/backuprepositories/status: patch":                       "is the only writer of this status",
		"hyperkeep.io/hostinventories: get list watch":                        "projects what agents see",
		"hyperkeep.io/hypervhosts: get list patch watch":                      "admits hosts; patch is for the finalizer that revokes an agent's rights",
		"hyperkeep.io/hypervhosts/finalizers: update":                         "a host owns the namespace of its agent",
		"hyperkeep.io/hypervhosts/status: patch":                              "is the only writer of this status",
		"hyperkeep.io/restorejobs: get list patch watch":                      "carries restores out; patch is for the finalizer",
		"hyperkeep.io/restorejobs/status: patch":                              "is the only writer of this status",
		"hyperkeep.io/virtualmachines: create get list patch watch":           "makes the objects of virtual machines, and keeps its own labels on them right",
		"hyperkeep.io/virtualmachines/status: patch":                          "is the only writer of this status",
		"rbac.authorization.k8s.io/clusterroles[hyperkeep-agent]: bind":       "gives an agent its rights, in its own namespace: the fence refuses any other",
		"rbac.authorization.k8s.io/clusterroles[hyperkeep-credentials]: bind": "gives itself the right to write credentials where an agent reads them: the fence refuses any other place",
		"rbac.authorization.k8s.io/clusterroles[hyperkeep-enroller]: bind":    "lets a host enroll: the fence refuses any other namespace than its agent's",
		"rbac.authorization.k8s.io/clusterroles[hyperkeep-token]: bind":       "lets an agent renew its token: the fence refuses any other namespace",
		"rbac.authorization.k8s.io/rolebindings: create get list watch":       "binds those four roles, and nothing else: it may bind no other",
		"rbac.authorization.k8s.io/rolebindings[agent]: delete":               "takes an agent's rights away",
		"rbac.authorization.k8s.io/rolebindings[agent-token]: delete":         "replaces a binding that somebody changed",
		"rbac.authorization.k8s.io/rolebindings[enroller]: delete":            "replaces a binding that somebody changed",
		"rbac.authorization.k8s.io/rolebindings[hyperkeep-manager]: delete":   "replaces a binding that somebody changed",
	},
	"Role/hyperkeep-manager": {
		"core/secrets: get": "reads, in its own namespace and by name, the Secret that a repository names; it lists none",
	},
	"Role/hyperkeep-leader-election": {
		"core/events: create patch":                                 "tells who became the leader, in its own namespace",
		"coordination.k8s.io/leases: create":                        "one manager works at a time",
		"coordination.k8s.io/leases[hyperkeep-manager]: get update": "one manager works at a time",
	},
	"ClusterRole/hyperkeep-metrics-auth": {
		"authentication.k8s.io/tokenreviews: create":        "asks who reads the metrics",
		"authorization.k8s.io/subjectaccessreviews: create": "asks whether they may",
	},
	"ClusterRole/hyperkeep-credentials": {
		"core/secrets: create delete get update": "bound in agents' namespaces only: hands credentials out and withdraws them",
	},
	"ClusterRole/hyperkeep-token": {
		"core/serviceaccounts/token[agent]: create": "bound in agents' namespaces only: an agent renews its token, a host that enrolls gets its first; a policy says bound to what",
	},
	"ClusterRole/hyperkeep-enroller": {
		"core/secrets: create":                   "claims the enrolment, which can be done once; a policy limits the name and the type",
		"core/serviceaccounts[enroller]: delete": "removes the account whose one-time token was used",
	},
	"ClusterRole/hyperkeep-agent": {
		"core/secrets: get":                                    "reads the credentials that were put into its namespace",
		"coordination.k8s.io/leases: create":                   "shows that it lives",
		"coordination.k8s.io/leases[agent]: get update":        "shows that it lives",
		"hyperkeep.io/agenttasks: get list watch":              "takes its work from there",
		"hyperkeep.io/agenttasks/status: patch update":         "reports on its work: it alone writes this status",
		"hyperkeep.io/hostinventories: create delete get list": "says what is on its host, in as many parts as that needs",
		"hyperkeep.io/hostinventories/status: patch update":    "says what is on its host",
	},
	"ClusterRole/hyperkeep-keeper": {
		"coordination.k8s.io/leases: get update": "bound in the keeper's namespace only: one process at a time deletes from a repository",
	},
}

func TestRightsHaveAReason(t *testing.T) {
	for name, have := range map[string]objects{"config": configured(t, "rbac"), "chart": rendered(t)} {
		for role, reasons := range allowed {
			kind, object, _ := strings.Cut(role, "/")
			namespace := ""
			if kind == "Role" {
				namespace = "hyperkeep-system"
			}
			rights := rightsOf(t, have, strings.Join([]string{kind, namespace, object}, "/"))
			for _, right := range rights {
				if reasons[right] == "" {
					t.Errorf("%s: %s has a right without a reason: %s", name, role, right)
				}
			}
			for right := range reasons {
				if !slices.Contains(rights, right) {
					t.Errorf("%s: %s lacks %s", name, role, right)
				}
			}
		}
	}
}

// Whoever adds a role for one of Hyperkeep's accounts must list it above.
func TestBindingsGiveListedRolesOnly(t *testing.T) {
	for key, object := range rendered(t) {
		if !strings.HasSuffix(object.GetKind(), "RoleBinding") {
			continue
		}
		ref := object.Object["roleRef"].(map[string]any)
		if role := fmt.Sprintf("%s/%s", ref["kind"], ref["name"]); allowed[role] == nil {
			t.Errorf("%s gives %s, whose rights have no reasons", key, role)
		}
	}
}

func TestNoRoleHasWildcards(t *testing.T) {
	roles, all := 0, rendered(t)
	for key, object := range all {
		if !strings.HasSuffix(object.GetKind(), "Role") {
			continue
		}
		roles++
		for _, right := range rightsOf(t, all, key) {
			for _, word := range []string{"*", "escalate", "impersonate", "pods/exec"} {
				if strings.Contains(right, word) {
					t.Errorf("%s has %s", key, right)
				}
			}
		}
	}
	if roles < 10 {
		t.Errorf("only %d roles were looked at", roles)
	}
}

// rightsOf writes each right of a role as group/resource[name]: verbs.
func rightsOf(t *testing.T, all objects, key string) []string {
	t.Helper()
	object := all[key]
	if object == nil {
		t.Fatalf("there is no %s", key)
	}
	var role rbacv1.ClusterRole
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(map[string]any{"rules": object.Object["rules"]}, &role); err != nil {
		t.Fatal(err)
	}
	verbs := map[string][]string{}
	for _, rule := range role.Rules {
		for _, group := range rule.APIGroups {
			if group == "" {
				group = "core"
			}
			for _, resource := range rule.Resources {
				for _, name := range named(rule.ResourceNames) {
					right := group + "/" + resource + name
					verbs[right] = append(verbs[right], rule.Verbs...)
				}
			}
		}
		for _, url := range rule.NonResourceURLs {
			verbs[url] = append(verbs[url], rule.Verbs...)
		}
	}
	var rights []string
	for right, may := range verbs {
		slices.Sort(may)
		rights = append(rights, right+": "+strings.Join(slices.Compact(may), " "))
	}
	return rights
}

func named(names []string) []string {
	if len(names) == 0 {
		return []string{""}
	}
	var with []string
	for _, name := range names {
		with = append(with, "["+name+"]")
	}
	return with
}
