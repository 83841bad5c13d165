//! Operations whose action has another name, or that need none. How resources are written, see
//! [`super::actions`].

/// An action with the resources that it is asked for on.
type Asked = (&'static str, &'static [&'static str]);

/// Operations whose action has another name, or that need none; for the registry "Amazon ECR
/// repository policies" (Amazon ECR user guide).
pub(super) const OTHER_NAME: &[(&str, &[Asked])] = &[
    ("cloudfront:CreateDistributionWithTags", &[("cloudfront:CreateDistribution", &["+*"])]),
    ("registry:GET base", &[]),
    ("registry:GET blobs", &[("ecr:GetDownloadUrlForLayer", REPOSITORY)]),
    ("registry:GET manifests", &[("ecr:BatchGetImage", REPOSITORY)]),
    ("registry:HEAD blobs", &[("ecr:BatchCheckLayerAvailability", REPOSITORY)]),
    ("registry:HEAD manifests", &[("ecr:BatchGetImage", REPOSITORY)]),
    ("registry:PATCH blobs", &[("ecr:UploadLayerPart", REPOSITORY)]),
    ("registry:POST blobs", &[("ecr:InitiateLayerUpload", REPOSITORY)]),
    ("registry:PUT blobs", &[("ecr:CompleteLayerUpload", REPOSITORY)]),
    ("registry:PUT manifests", &[("ecr:PutImage", REPOSITORY)]),
    (
        "s3:CopyObject",
        &[("s3:GetObject", &["s3:::{CopySource}"]), ("s3:PutObject", &["s3:::{Bucket}/{Key}"])],
    ),
    // Every version is deleted by its id.
    ("s3:DeleteObjects", &[("s3:DeleteObjectVersion", &["s3:::{Bucket}/{Object.Key}"])]),
    ("s3:GetBucketEncryption", &[("s3:GetEncryptionConfiguration", BUCKET)]),
    ("s3:GetBucketLifecycleConfiguration", &[("s3:GetLifecycleConfiguration", BUCKET)]),
    ("s3:GetPublicAccessBlock", &[("s3:GetBucketPublicAccessBlock", BUCKET)]),
    ("s3:HeadBucket", &[("s3:ListBucket", BUCKET)]),
    ("s3:HeadObject", &[("s3:GetObject", &["s3:::{Bucket}/{Key}"])]),
    ("s3:ListBuckets", &[("s3:ListAllMyBuckets", &["*"])]),
    ("s3:ListObjectVersions", &[("s3:ListBucketVersions", BUCKET)]),
    ("s3:ListObjectsV2", &[("s3:ListBucket", BUCKET)]),
    ("s3:PutBucketEncryption", &[("s3:PutEncryptionConfiguration", BUCKET)]),
    ("s3:PutBucketLifecycleConfiguration", &[("s3:PutLifecycleConfiguration", BUCKET)]),
    ("s3:PutPublicAccessBlock", &[("s3:PutBucketPublicAccessBlock", BUCKET)]),
    // Nothing can take it away ("GetCallerIdentity", AWS STS API reference).
    ("sts:GetCallerIdentity", &[]),
];

const BUCKET: &[&str] = &["s3:::{Bucket}"];
const REPOSITORY: &[&str] = &["ecr:repository/{Repository}"];
