{
  "tool": "https://github.com/kopia/kopia",
  "buildVersion": "v0-unofficial",
  "buildInfo": "-(unknown_revision)",
  "uniqueID": "dn32dc/PQlon3Mmzz6/h9DgaQZpz5254CblHbpA1TsY=",
  "keyAlgo": "scrypt-65536-8-1",
  "encryption": "AES256_GCM",
  "encryptedBlockFormat": "cOs/+kBUkMKZrBmlhbirxZZi6ltv7n8JK8XWwDq+X1TSI6hbgt7r4/j3G6jhYk0Bi97AF3u5eugYS5T9qga9VKYANYSrLGbbRo/dbPHfs5UQv3NCXZSONh3iMFyoYDG4/cl/SmY2g5y1lc7E8a0Gtzm/mNM4RoIjzLKnkxpZgO8dRLfT+3WumlfMmCdJhU49NEMLrl5zMjU1/5XYX0Bw336Aix94fsdYe7C/Kagobns0fz1AFiHu17HwRso1fWe17m8+F3H/B186A+cXT4mCPG7gw8n9yy2OiDgBcjcNj1D0sygeuahuxfzkJ1F1IkzrKVarJ/a3mhcsaYOfk+ZaSZ3CIEHhtwj6+4DizLlSqi35bVf3MrXRAqgHW/1tzp2DrDhoaWlU+/VH6hiMW/9DFRzLYLJKPFgXcSZsbzrEYcwUlPTn/JbOuRtHg/U8QGELZiFl0BmzQ2Eqce1JJj/DtLGTX2s6V2esESKIlxdHpYYbzwE7PjSot2ErZ+5PV06/kNXayCpz6iAFTiHhOrsHGA6E+GvKBxMqf/esvrSmBFoz8bMZsXEkcY/IBdeQW56DvDvcUncBL7CbNHEFu1kumT2x8roeG2BIsCyCSzU0CNp1U7meFjxnVwqWGl/FmPimRM28y1GhMeMSxIXrLaFVTKDE55LH+zbfBPCA9ewVaqBP4I8W+VwYyo92kdkjGOzbQazBoXtPUjFwNtPluEtu9fC4iC7gmE4EJ1LVuVKr0w07XBlj4IRXRziEGOYglfwl1OfcAvoUcOWQVeR5/vwKrUx64Q=="
}
